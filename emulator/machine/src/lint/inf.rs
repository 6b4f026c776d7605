//! As much of an INF as matters to isolation: class, device ids, and how the
//! driver stands to DMA remapping.

use super::{Remark, Severity, note, warning};
use std::collections::BTreeMap;

/// No INF is longer, bytes.
pub const MAX_INF: u64 = 1 << 20;

/// An INF file, its `%strings%` replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Inf {
    /// Section (lower case) and line, in order.
    lines: Vec<(String, String)>,
}

/// UTF-16 with its mark, or bytes that are mostly ASCII.
fn decode(bytes: &[u8]) -> String {
    match bytes {
        [0xff, 0xfe, rest @ ..] => {
            let units: Vec<u16> = rest
                .chunks_exact(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect();
            String::from_utf16_lossy(&units)
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

impl Inf {
    /// Read an INF. Anything is one; what is not understood is left aside.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let text = decode(bytes);
        let mut section = String::new();
        let mut lines = Vec::new();
        let mut strings = BTreeMap::new();
        for line in text.lines() {
            let line = line.split(';').next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name.trim().to_lowercase();
            } else if !line.is_empty() {
                if section == "strings"
                    && let Some((key, value)) = line.split_once('=')
                {
                    let value = value.trim().trim_matches('"').to_owned();
                    strings.insert(key.trim().to_lowercase(), value);
                }
                lines.push((section.clone(), line.to_owned()));
            }
        }
        for (_, line) in &mut lines {
            *line = expand(line, &strings);
        }
        Self { lines }
    }

    /// The value of `key = value` in a section.
    fn value(&self, section: &str, key: &str) -> Option<&str> {
        self.lines
            .iter()
            .filter(|(s, _)| s == section)
            .filter_map(|(_, line)| line.split_once('='))
            .find(|(k, _)| k.trim().eq_ignore_ascii_case(key))
            .map(|(_, v)| v.trim())
    }

    /// The data of every `HKR` line that sets `name`.
    fn registry(&self, name: &str) -> Vec<&str> {
        self.lines
            .iter()
            .filter_map(|(_, line)| {
                let fields: Vec<&str> = line.split(',').map(str::trim).collect();
                match fields.as_slice() {
                    [root, _, value, _, data]
                        if root.eq_ignore_ascii_case("HKR") && value.eq_ignore_ascii_case(name) =>
                    {
                        Some(*data)
                    }
                    _ => None,
                }
            })
            .collect()
    }

    /// Hardware ids that it installs for.
    fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self
            .lines
            .iter()
            .filter_map(|(_, line)| line.split_once('='))
            .flat_map(|(_, right)| right.split(','))
            .map(|part| part.trim().to_uppercase())
            .filter(|part| part.starts_with("PCI\\VEN_"))
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }

    pub(super) fn remarks(&self, secure_mode: bool, remarks: &mut Vec<Remark>) {
        let class = self.value("version", "class").unwrap_or("none");
        if !class.eq_ignore_ascii_case("display") {
            remarks.push(Remark {
                severity: Severity::Error,
                id: "inf-class",
                text: format!("the INF's class is {class:?}; a display driver's is \"Display\""),
            });
        }
        let ids = self.ids();
        if ids.is_empty() {
            remarks.push(warning(
                "inf-ids",
                "the INF names no PCI device id: nothing would be installed".to_owned(),
            ));
        } else {
            remarks.push(note("inf-ids", format!("installs for {}", ids.join(", "))));
        }
        remapping(
            &self.registry("DmaRemappingCompatible"),
            secure_mode,
            remarks,
        );
    }
}

/// What the DmaRemappingCompatible value says (pci/
/// enabling-dma-remapping-for-device-drivers.md).
fn remapping(values: &[&str], secure_mode: bool, remarks: &mut Vec<Remark>) {
    let id = "inf-dma-remapping";
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    match values {
        [] => remarks.push(note(
            id,
            "no DmaRemappingCompatible: Windows decides, and does not enforce remapping".to_owned(),
        )),
        [one] => {
            let meaning = match number(one) {
                Some(0) => "opts out of DMA remapping",
                Some(1) => "opts in to DMA remapping",
                Some(2) => "opts in for external devices, or under Verifier's DMA checking",
                Some(3) => "opts in to DMA remapping (Windows 11; 2 on Windows 10)",
                _ => {
                    remarks.push(Remark {
                        severity: Severity::Error,
                        id,
                        text: format!("DmaRemappingCompatible is {one:?}: 0, 1, 2 or 3 are known"),
                    });
                    return;
                }
            };
            remarks.push(note(id, format!("DmaRemappingCompatible {one}: {meaning}")));
            // WDDM 2.4 isolation is 1:1 and is asked for by a cap; remapping
            // is not 1:1, and its own memory interface is WDDM 2.9's.
            if secure_mode && number(one) != Some(0) {
                remarks.push(warning(
                    id,
                    "the driver reports IoMmuSecureModeSupported (1:1 isolation) and opts in to \
                     remapping, whose addresses are not physical ones: it must use the \
                     physical memory objects and ADLs of WDDM 2.9"
                        .to_owned(),
                ));
            }
        }
        several => remarks.push(warning(
            id,
            format!("DmaRemappingCompatible is set {} times", several.len()),
        )),
    }
}

/// Replace `%key%`; an unknown key stays as it is. Once, so that no string
/// can grow by containing itself.
fn expand(line: &str, strings: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        match after.split_once('%') {
            Some((key, later)) if strings.contains_key(&key.to_lowercase()) => {
                out.push_str(&strings[&key.to_lowercase()]);
                rest = later;
            }
            _ => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}
