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
    /// What the scenario of that run verifies is not so.
    Verify(Run),
    /// By the bug check or the hang that ends any run.
    End,
    /// By nothing, for this reason, in that run either.
    Nothing(&'static str, Run),
}

/// A run in which the call is made. The driver that leaves nothing out passes
/// it: nothing is found, and it refuses no step but where the scenario expects
/// that.
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

const FEATURES: Run = run("all-features");
const WINDOWS: Run = Run {
    arguments: PIN_FAILS,
    ..run("all-features")
};
const NO_WAITS: Run = run("no-waits");
const SCATTERED: Run = Run {
    arguments: &["--quarantine", "0"],
    ..run("scattered-pages")
};
const SAVED_FRAME_FAILS: Run = run("saved-frame-fails");
const SAVED_ROWS_FAIL: Run = Run {
    arguments: PIN_FAILS,
    ..run("saved-frame-fails")
};

const PIN_FAILS: &[&str] = &["--framebuffer-pin", "fail"];

const LEAK: &str = "handle-leak";

/// The run of a scenario without more arguments.
const fn run(scenario: &'static str) -> Run {
    Run {
        scenario,
        arguments: &[],
    }
}

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

const fn verify(name: &'static str, run: Run) -> Mutation {
    Mutation {
        name,
        shows: Shows::Verify(run),
    }
}

const fn nothing(name: &'static str, reason: &'static str) -> Mutation {
    Mutation {
        name,
        shows: Shows::Nothing(reason, FEATURES),
    }
}

const UNREF: &str = "the unreference that follows takes it from the device too";
const REDRAWN: &str = "the reset that follows ends what is outstanding, and the frame is drawn \
                       again in D0";
const RESET: &str = "the reset that follows ends what is outstanding";
const WHOLE_PIN: &str = "no run makes the call: dxgkrnl pins all that is asked for, or nothing \
                         (rule save-pin)";
const WHOLE: &str = "no run makes the call: dxgkrnl gives every page that is asked for, or none \
                     (rule callback-no-partial)";

/// Every mutation.
pub const ALL: &[Mutation] = &[
    // A resource.
    finding("free-retire", "dma-use-after-free", NO_WAITS),
    refusal("free-wait", run("frame-fails")),
    nothing("free-scanout-off", UNREF),
    nothing("free-detach", UNREF),
    refusal("detach-wait", run("saved-detach-fails")),
    refusal("free-unref", run("many-lives")),
    refusal("unref-wait", run("unref-fails")),
    nothing(
        "free-unmap",
        "MmFreePagesFromMdl takes back the mapping of an MDL that it frees",
    ),
    finding("free-pages", LEAK, FEATURES),
    finding("frame-commands-free", LEAK, FEATURES),
    finding("entries-free", LEAK, SCATTERED),
    finding("attach-command-free", LEAK, run("backing-times-out")),
    finding("forgotten-command-free", LEAK, run("wake-times-out")),
    nothing("short-list-free", WHOLE),
    refusal("resize-wait", run("frame-fails")),
    refusal("present-wait", run("many-outstanding")),
    verify("escape-wait", run("frame-error-is-told")),
    nothing(
        "scanout-off",
        "the scanout goes on showing a resource that lives",
    ),
    // The cursor.
    refusal("cursor-hide", run("cursor-hidden")),
    nothing("cursor-hide-wait", IDLE_CURSOR),
    nothing(
        "cursor-draw-wait",
        "the transfer before was waited for when it was sent",
    ),
    verify("cursor-transfer-wait", run("cursor-error-is-told")),
    refusal("cursor-send-wait", run("many-outstanding")),
    // D3 and D0.
    nothing("power-down-wait", REDRAWN),
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
    nothing("short-pin-unpin", WHOLE_PIN),
    finding("window-unmap", LEAK, WINDOWS),
    verify("wake-reset", run("unplugged-in-d3")),
    refusal("restore-saved-wait", SAVED_FRAME_FAILS),
    refusal("restore-detach", FEATURES),
    finding("restore-unpin", LEAK, FEATURES),
    refusal("restore-rows-wait", SAVED_ROWS_FAIL),
    refusal("restore-rows-detach", WINDOWS),
    verify("restore-wait", run("wake-error-is-told")),
    // Exclusive access.
    nothing("exclusive-wait", RESET),
    nothing("exclusive-cursor-wait", RESET),
    finding("device-reset", "exclusive-access-violation", NO_WAITS),
    // Start and stop.
    nothing("start-reset", "nothing has used the device before"),
    finding("ring-undo-free", LEAK, run("no-memory-for-requests")),
    nothing(
        "registers-undo-unmap",
        "no run makes the call: the device has all its structures in one register, and what is \
         mapped first is mapped last",
    ),
    Mutation {
        name: "cut-off",
        shows: Shows::Nothing(
            "a device that does not confirm its reset is one that is gone, and reaches no memory",
            run("unplugged"),
        ),
    },
    finding(
        "interrupts-stop",
        "cpu-use-after-free",
        run("late-interrupt"),
    ),
    refusal("queue-shut-down", run("frame-times-out")),
    refusal("cursor-queue-shut-down", run("cursor-times-out")),
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
    nothing(
        "dxgkrnl-unload",
        "no run makes the call: dxgkrnl is loaded on every Windows before its first driver",
    ),
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
