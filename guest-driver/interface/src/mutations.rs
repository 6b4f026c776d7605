//! The mutations of the guest driver: each leaves out one call that frees,
//! unmaps, waits, detaches, resets or turns something off. A build with the
//! feature `mutations` takes the name of one in the registry value
//! `Mutation`.

/// How a run tells that a call was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// By this finding, in that run.
    Finding(&'static str, Run),
    /// A step of the workload is refused in that run: the device answers an
    /// error to what the driver sends next.
    Refusal(Run),
    /// By the bug check or the hang that ends any run.
    End,
    /// By nothing, for this reason.
    Nothing(&'static str),
}

/// A run in which the call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// File in the scenarios' folder, without its extension.
    pub scenario: &'static str,
    /// More arguments of the run.
    pub arguments: &'static [&'static str],
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Its name.
    pub name: &'static str,
    /// How it shows.
    pub shows: Shows,
}

const FEATURES: Run = Run {
    scenario: "all-features",
    arguments: &[],
};
const WINDOWS: Run = Run {
    scenario: "all-features",
    arguments: &["--framebuffer-pin", "fail"],
};
const NO_WAITS: Run = Run {
    scenario: "no-waits",
    arguments: &[],
};
const SCATTERED: Run = Run {
    scenario: "scattered-pages",
    arguments: &["--quarantine", "0"],
};

const LEAK: &str = "handle-leak";

const fn finding(name: &'static str, finding: &'static str, run: Run) -> Mutation {
    Mutation {
        name,
        shows: Shows::Finding(finding, run),
    }
}

const fn refusal(name: &'static str, run: Run) -> Mutation {
    Mutation {
        name,
        shows: Shows::Refusal(run),
    }
}

const fn nothing(name: &'static str, reason: &'static str) -> Mutation {
    Mutation {
        name,
        shows: Shows::Nothing(reason),
    }
}

const IN_ORDER: &str = "a queue is worked off in order: the answer that is waited for next comes \
                        after what was not waited for";
const UNREF: &str = "the unreference that follows takes it from the device too";
const RESET: &str = "the reset that follows ends what is outstanding";
const UNREACHED: &str = "only after a failure that the machine does not make";
const PIXELS: &str = "the device reads pixels while they are drawn, in memory that is its to read";
const IDLE: &str = "the device is idle and was reset: nothing makes it access memory";

/// Every mutation.
pub const ALL: &[Mutation] = &[
    // A resource.
    finding("free-retire", "dma-use-after-free", NO_WAITS),
    nothing("free-wait", IN_ORDER),
    nothing("free-scanout-off", UNREF),
    nothing("free-detach", UNREF),
    nothing("detach-wait", IN_ORDER),
    nothing(
        "free-unref",
        "the backing is detached, and of a blob the scanout is off: nothing is read of it",
    ),
    nothing("unref-wait", IN_ORDER),
    nothing(
        "free-unmap",
        "MmFreePagesFromMdl takes back the mapping of an MDL that it frees",
    ),
    finding("free-pages", LEAK, FEATURES),
    finding("frame-commands-free", LEAK, FEATURES),
    finding("entries-free", LEAK, SCATTERED),
    nothing("attach-command-free", UNREACHED),
    nothing("forgotten-command-free", UNREACHED),
    nothing("short-list-free", UNREACHED),
    nothing("resize-wait", IN_ORDER),
    nothing("present-wait", PIXELS),
    nothing("escape-wait", "a program waits for its own sake"),
    nothing(
        "scanout-off",
        "the scanout goes on showing a resource that lives",
    ),
    // The cursor.
    nothing(
        "cursor-hide",
        "the device keeps a copy of the cursor's picture and does not read it again",
    ),
    nothing("cursor-hide-wait", IDLE_CURSOR),
    nothing("cursor-draw-wait", PIXELS),
    nothing("cursor-transfer-wait", PIXELS),
    nothing(
        "cursor-send-wait",
        "the cursor queue has room for the commands of many moves",
    ),
    // D3 and D0.
    nothing("power-down-wait", RESET),
    nothing("power-down-cursor-wait", RESET),
    nothing(
        "power-down-bus-master-off",
        "the device was reset, and dxgkrnl takes its power away",
    ),
    nothing(
        "save-unmap",
        "what unpins the pages takes back the mapping of their MDL",
    ),
    finding("save-unpin", LEAK, FEATURES),
    nothing("short-pin-unpin", UNREACHED),
    finding("window-unmap", LEAK, WINDOWS),
    nothing("wake-reset", "the device was reset before it went to D3"),
    nothing("restore-saved-wait", IN_ORDER),
    refusal("restore-detach", FEATURES),
    finding("restore-unpin", LEAK, FEATURES),
    nothing("restore-rows-wait", PIXELS),
    refusal("restore-rows-detach", WINDOWS),
    nothing("restore-wait", IN_ORDER),
    // Exclusive access.
    nothing("exclusive-wait", RESET),
    nothing("exclusive-cursor-wait", RESET),
    finding("device-reset", "exclusive-access-violation", NO_WAITS),
    // Start and stop.
    nothing("start-reset", "nothing has used the device before"),
    nothing("ring-undo-free", UNREACHED),
    nothing("registers-undo-unmap", UNREACHED),
    nothing("cut-off", UNREACHED),
    nothing(
        "interrupts-stop",
        "a device that was reset does not interrupt",
    ),
    nothing("queue-shut-down", IDLE),
    nothing("cursor-queue-shut-down", IDLE),
    finding("small-buffer-free", LEAK, FEATURES),
    finding("cursor-commands-free", LEAK, FEATURES),
    finding("cursor-ring-free", LEAK, FEATURES),
    finding("commands-free", LEAK, FEATURES),
    finding("ring-free", LEAK, FEATURES),
    finding("registers-unmap", LEAK, FEATURES),
    nothing(
        "bus-master-off",
        "it was on when the driver started, and the bus driver turns it off after the stop",
    ),
    finding("adapter-free", "memory-leak", FEATURES),
    // The kernel's objects.
    nothing("key-close", KERNEL_OBJECT),
    nothing("dxgkrnl-dereference", KERNEL_OBJECT),
    nothing("dxgkrnl-unload", UNREACHED),
    nothing(
        "registration-wait",
        "the request is complete when it returns",
    ),
    Mutation {
        name: "spin-lock-release",
        shows: Shows::End,
    },
    nothing("mutex-hand-over", ONE_THREAD),
    nothing("mutex-wait", ONE_THREAD),
];

const IDLE_CURSOR: &str = "the picture was copied when it was shown; hiding it reads none";
const KERNEL_OBJECT: &str = "a reference too many keeps an object that no device reaches";
const ONE_THREAD: &str = "one thread calls the driver, so nobody waits for the mutex";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_there_twice() {
        for (at, mutation) in ALL.iter().enumerate() {
            assert!(
                ALL[..at].iter().all(|other| other.name != mutation.name),
                "{}",
                mutation.name
            );
        }
    }
}
