//! The registry: a tree of keys as data, built from the run's settings.

mod services;
mod values;

pub(super) use services::{create_key, flush_key, open_device_key, open_key};
pub(super) use values::{delete_value, query_value, set_value};

use std::collections::BTreeMap;

/// REG_SZ.
pub const REG_SZ: u32 = 1;
/// REG_DWORD.
pub const REG_DWORD: u32 = 4;

/// Most keys there may be.
const MAX_KEYS: usize = 4096;
/// Most values of one key.
const MAX_VALUES: usize = 1024;
/// Longest data of a value, bytes: Windows' own limit of a value.
const MAX_DATA: usize = 1 << 20;

/// Where services are.
const SERVICES: &str = "\\Registry\\Machine\\System\\CurrentControlSet\\Services";
/// The software key of the first display adapter: its class is `Display`.
const SOFTWARE: &str = "\\Registry\\Machine\\System\\CurrentControlSet\\Control\\Class\\\
                        {4d36e968-e325-11ce-bfc1-08002be10318}\\0000";
/// The hardware key of the emulated virtio-gpu (1AF4:1050).
const HARDWARE: &str = "\\Registry\\Machine\\System\\CurrentControlSet\\Enum\\PCI\\\
                        VEN_1AF4&DEV_1050\\0\\Device Parameters";

/// The data of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Value {
    /// Its name as it was set.
    pub name: String,
    /// REG_*.
    pub kind: u32,
    /// Its bytes.
    pub data: Vec<u8>,
}

impl Value {
    /// A REG_DWORD.
    #[must_use]
    pub fn dword(name: &str, value: u32) -> Self {
        Self {
            name: name.to_owned(),
            kind: REG_DWORD,
            data: value.to_le_bytes().to_vec(),
        }
    }

    /// A REG_SZ, with its terminating zero.
    #[must_use]
    pub fn text(name: &str, value: &str) -> Self {
        let units = value.encode_utf16().chain([0]);
        Self {
            name: name.to_owned(),
            kind: REG_SZ,
            data: units.flat_map(u16::to_le_bytes).collect(),
        }
    }

    /// A setting of the command line: a decimal or 0x number is a REG_DWORD,
    /// anything else a REG_SZ.
    #[must_use]
    pub fn setting(name: &str, value: &str) -> Self {
        let hexadecimal = value
            .strip_prefix("0x")
            .or_else(|| value.strip_prefix("0X"))
            .filter(|digits| !digits.starts_with('+'));
        let number = match hexadecimal {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None if value.starts_with('+') => None,
            None => value.parse().ok(),
        };
        match number {
            Some(number) => Self::dword(name, number),
            None => Self::text(name, value),
        }
    }
}

/// Keys and values, by normalised path and name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registry {
    keys: BTreeMap<String, BTreeMap<String, Value>>,
    /// `ServiceName` of the driver.
    service: String,
}

impl Registry {
    /// The keys that a display driver finds: its service's, its device's,
    /// with the settings in the device's software key and the service's
    /// Parameters key.
    #[must_use]
    pub fn new(service: &str, settings: &[(String, String)]) -> Self {
        let mut registry = Self {
            service: service.to_owned(),
            ..Self::default()
        };
        registry.create(&format!("{SERVICES}\\DXGKrnl"));
        registry.create(SOFTWARE);
        registry.create(HARDWARE);
        let service_key = registry.service_key();
        registry.create(&format!("{service_key}\\Parameters"));
        // SERVICE_KERNEL_DRIVER, SERVICE_DEMAND_START, SERVICE_ERROR_NORMAL.
        for (name, value) in [("Type", 1), ("Start", 3), ("ErrorControl", 1)] {
            registry.set(&service_key, Value::dword(name, value));
        }
        registry.set(
            &service_key,
            Value::text(
                "ImagePath",
                &format!("\\SystemRoot\\System32\\drivers\\{service}.sys"),
            ),
        );
        registry.set(SOFTWARE, Value::text("DriverDesc", service));
        for (name, value) in settings {
            for key in [SOFTWARE, &format!("{service_key}\\Parameters")] {
                registry.set(key, Value::setting(name, value));
            }
        }
        registry
    }

    /// The key of the driver's service: the RegistryPath of `DriverEntry`.
    #[must_use]
    pub fn service_key(&self) -> String {
        format!("{SERVICES}\\{}", self.service)
    }

    /// The device's software key: where a display driver reads its settings.
    #[must_use]
    pub fn device_key(&self) -> String {
        SOFTWARE.to_owned()
    }

    /// The value of a key.
    #[must_use]
    pub fn value(&self, key: &str, name: &str) -> Option<&Value> {
        self.keys.get(&normal(key))?.get(&name.to_lowercase())
    }

    /// Is there such a key?
    #[must_use]
    pub fn has_key(&self, key: &str) -> bool {
        self.keys.contains_key(&normal(key))
    }

    /// Set a value of a key, which is made if need be. False at a limit.
    pub fn set(&mut self, key: &str, value: Value) -> bool {
        if !self.create(key) || value.data.len() > MAX_DATA {
            return false;
        }
        let values = self.keys.entry(normal(key)).or_default();
        let name = value.name.to_lowercase();
        if values.len() >= MAX_VALUES && !values.contains_key(&name) {
            return false;
        }
        values.insert(name, value);
        true
    }

    /// Make a key and those above it. False at a limit.
    fn create(&mut self, key: &str) -> bool {
        let path = normal(key);
        let ends = path
            .match_indices('\\')
            .map(|(at, _)| at)
            .filter(|&at| at > 0)
            .chain([path.len()]);
        for end in ends {
            let Some(part) = path.get(..end) else {
                continue;
            };
            if self.keys.len() >= MAX_KEYS && !self.keys.contains_key(part) {
                return false;
            }
            self.keys.entry(part.to_owned()).or_default();
        }
        true
    }

    fn remove(&mut self, key: &str, name: &str) -> bool {
        self.keys
            .get_mut(&normal(key))
            .and_then(|values| values.remove(&name.to_lowercase()))
            .is_some()
    }
}

/// A path as the tree has it: lower case, without a trailing backslash, the
/// current control set under its own name.
fn normal(path: &str) -> String {
    let path = path.trim_end_matches('\\').to_lowercase();
    path.replace("\\controlset001", "\\currentcontrolset")
}
