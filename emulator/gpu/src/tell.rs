//! What the journal is told of commands.

use crate::VirtioGpu;
use crate::command::{self, Command};
use crate::step::Job;
use iommu::Dma;
use journal::event::{self, ContextId, Event};

impl VirtioGpu {
    /// A command that was not read far enough to be done.
    pub(crate) fn name_command(&self, dma: Dma<'_>, job: &Job, detail: &str) {
        self.tell_command(dma, job, detail, None);
    }

    pub(crate) fn tell_command(
        &self,
        dma: Dma<'_>,
        job: &Job,
        detail: &str,
        resource: Option<u32>,
    ) {
        let journal = dma.env().scenario.journal();
        let name = job.header.map_or(UNREAD, |h| command::name(h.kind));
        learnt(dma, job.context, name);
        let name = journal.name(name);
        journal.emit(Event::Command {
            context: job.context,
            name,
            detail: detail.to_owned(),
            resource,
        });
    }

    pub(crate) fn told(&self, dma: Dma<'_>, context: ContextId, code: u32) {
        let journal = dma.env().scenario.journal();
        let name = journal.name(command::response_name(code));
        journal.emit(Event::Response {
            context,
            code,
            name,
        });
    }

    pub(crate) fn tell_flush(&self, dma: Dma<'_>, scanout: u32) {
        if let Some(frame) = self.gpu.frame(scanout) {
            dma.env().scenario.journal().emit(Event::Flush {
                scanout,
                width: frame.width,
                height: frame.height,
                crc: frame.crc(),
            });
        }
    }
}

/// A command of which not even the header was read.
const UNREAD: &str = "UNREAD";

/// By what names the device does something, for [`scenario::Fault::command`].
pub fn commands() -> impl Iterator<Item = &'static str> {
    let known = crate::spec::command::NAMES.iter().map(|row| row.1);
    known.chain([command::name(u32::MAX), UNREAD, crate::vsync::NAME])
}

/// Faults may be for certain commands only.
pub(crate) fn learnt(dma: Dma<'_>, context: ContextId, name: &str) {
    let scenario = dma.env().scenario;
    if scenario.is_faulty() {
        scenario.learnt(context.0, name);
    }
}

/// A command was done that gave a resource its backing, or took it.
pub(crate) fn tell_backing(dma: Dma<'_>, context: ContextId, command: &Command) {
    let event = match command {
        Command::Attach { resource, entries }
        | Command::CreateBlob {
            resource, entries, ..
        } if !entries.is_empty() => Event::Backing {
            context,
            resource: *resource,
            segments: entries
                .iter()
                .map(|&(iova, length)| event::Segment { iova, length })
                .collect(),
        },
        Command::Detach { resource } | Command::Unref { resource } => Event::NoBacking {
            context,
            resource: *resource,
        },
        _ => return,
    };
    dma.env().scenario.journal().emit(event);
}
