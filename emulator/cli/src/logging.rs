//! The log of the binary: what a guest can provoke may not flood it.

use env_logger::{Env, Logger};
use log::{Log, Metadata, Record};
use std::collections::HashMap;
use std::sync::Mutex;

/// Messages shown from one place in the code; a guest can provoke any number.
const SHOWN: u64 = 8;

/// Shows the first messages of each place, and says when it stops.
struct Limited {
    inner: Logger,
    /// Messages so far, by file and line.
    counts: Mutex<HashMap<(String, u32), u64>>,
}

impl Limited {
    fn count(&self, record: &Record<'_>) -> u64 {
        let place = (
            record.file().unwrap_or_default().to_owned(),
            record.line().unwrap_or_default(),
        );
        let Ok(mut counts) = self.counts.lock() else {
            return 0;
        };
        let count = counts.entry(place).or_default();
        *count += 1;
        *count
    }
}

impl Log for Limited {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.inner.matches(record) {
            return;
        }
        match self.count(record) {
            ..=SHOWN => self.inner.log(record),
            count if count == SHOWN + 1 => {
                let text = format_args!("{} (and more like it, not shown)", record.args());
                let last = Record::builder()
                    .metadata(record.metadata().clone())
                    .args(text)
                    .build();
                self.inner.log(&last);
            }
            _ => {}
        }
    }

    fn flush(&self) {
        self.inner.flush();
    }
}

/// Log warnings to standard error; `RUST_LOG` asks for more or less. What
/// virtio-queue says of a driver's rings is in the journal already.
pub fn init() {
    let env = Env::default().default_filter_or("warn,virtio_queue=off");
    let inner = env_logger::Builder::from_env(env)
        .format_timestamp(None)
        .build();
    let level = inner.filter();
    let limited = Limited {
        inner,
        counts: Mutex::default(),
    };
    if log::set_boxed_logger(Box::new(limited)).is_ok() {
        log::set_max_level(level);
    }
}
