//! The mutations of the guest driver: each leaves out one call that gives
//! something back. A build with the feature `mutations` takes the name of
//! one in the registry value `Mutation`.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// Its name.
    pub name: &'static str,
    /// Why nobody can tell that the call was left out; empty when a tool
    /// ought to.
    pub silent: &'static str,
}

const fn seen(name: &'static str) -> Mutation {
    Mutation { name, silent: "" }
}

const fn silent(name: &'static str, reason: &'static str) -> Mutation {
    Mutation {
        name,
        silent: reason,
    }
}

const IN_ORDER: &str = "the queue works in order: the answer to the detach that follows comes \
                        after the frames";

/// Every mutation.
pub const ALL: &[Mutation] = &[
    silent("ring-undo-free", ""),
    silent("start-reset", ""),
    silent("wake-reset", ""),
    silent("adapter-free", ""),
    silent("short-list-free", ""),
    silent("short-pin-unpin", ""),
    silent("registers-undo-unmap", ""),
    silent("escape-wait", ""),
    silent("scanout-off", ""),
    silent("cursor-send-wait", ""),
    silent("unref-wait", ""),
    silent("detach-wait", ""),
    silent("dxgkrnl-unload", ""),
    silent("dxgkrnl-dereference", ""),
    silent("registration-wait", ""),
    silent("key-close", ""),
    silent("spin-lock-release", ""),
    silent("mutex-hand-over", ""),
    silent("mutex-wait", ""),
    seen("free-detach"),
    seen("free-unref"),
    seen("free-unmap"),
    seen("free-pages"),
    seen("frame-commands-free"),
    seen("attach-command-free"),
    seen("entries-free"),
    seen("ring-free"),
    seen("commands-free"),
    seen("cursor-ring-free"),
    seen("cursor-commands-free"),
    seen("small-buffer-free"),
    seen("registers-unmap"),
    seen("device-reset"),
    seen("save-unmap"),
    seen("save-unpin"),
    seen("window-unmap"),
    seen("restore-unpin"),
    seen("restore-detach"),
    seen("restore-rows-detach"),
    seen("forgotten-command-free"),
    seen("exclusive-wait"),
    seen("power-down-wait"),
    silent("free-wait", IN_ORDER),
    silent("resize-wait", IN_ORDER),
    silent("present-wait", ""),
    silent("free-scanout-off", ""),
    silent("cut-off", ""),
    silent("interrupts-stop", ""),
    silent("queue-shut-down", ""),
    silent("cursor-queue-shut-down", ""),
    silent("bus-master-off", ""),
    silent("power-down-cursor-wait", ""),
    silent("power-down-bus-master-off", ""),
    silent("exclusive-cursor-wait", ""),
    silent("cursor-hide", ""),
    silent("cursor-hide-wait", ""),
    silent("cursor-draw-wait", ""),
    silent("cursor-transfer-wait", ""),
    silent("restore-wait", ""),
    silent("restore-saved-wait", ""),
    silent("restore-rows-wait", ""),
];
