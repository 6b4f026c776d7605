//! The same guest behind QEMU's VT-d, QEMU's virtio-iommu and ours: what it
//! does with a healthy driver is silent, and what a device does that is told
//! to misbehave is found, each behind each. `scripts/test-qemu` runs them.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use std::time::Duration;
use support::guest::{Guest, SOON};
use support::json;

/// Colours of the upper part of the SMPTE bars, left to right, as libdrm's
/// pattern has them.
const BARS: [u32; 7] = [
    0xc0c0c0, 0xc0c000, 0x00c0c0, 0x00c000, 0xc000c0, 0xc00000, 0x0000c0,
];

/// Let modetest show its bars in a mode, and look at the screen meanwhile.
fn assert_bars(guest: &mut Guest, connector: &str, width: usize, height: usize) {
    // It shows them until it reads a line, or the end of its input.
    guest.shell("rm -f /wait; mkfifo /wait");
    guest.shell(&format!(
        "{{ modetest -M virtio_gpu -s {connector}:{width}x{height} < /wait > /shown 2>&1 & }}"
    ));
    guest.shell("exec 9> /wait; sleep 2");
    let (wide, pixels) = guest.screen();
    let said = guest.shell("cat /shown");
    assert_eq!((wide, pixels.len()), (width, width * height), "{said}");
    for line in [height / 10, height / 2] {
        let shown: Vec<u32> = (0..BARS.len())
            .map(|bar| pixels[line * width + (2 * bar + 1) * width / 14])
            .collect();
        assert_eq!(shown, BARS, "line {line} of {width}x{height}: {said}");
    }
    guest.shell("exec 9>&-; wait");
}

/// All that a healthy guest does with its display.
fn healthy(name: &str) {
    let mut guest = Guest::without_blobs(name);
    let log = guest.log();
    assert!(log.contains("guest: driver virtio-pci"), "{log}");
    assert!(log.contains("in iommu group"), "{log}");
    assert!(log.contains("guest: fb0 virtio_gpudrmfb 1024,768"), "{log}");
    guest.assert_drawn();
    let said = guest.shell("modetest -M virtio_gpu -c");
    let connected = said.lines().find(|line| line.contains("\tconnected\t"));
    let connector = connected.unwrap_or_else(|| panic!("no connector: {said}"));
    let connector = connector.split_whitespace().next().unwrap().to_owned();
    for mode in ["1024x768", "800x600"] {
        assert!(said.contains(mode), "{mode} is not offered: {said}");
    }
    assert_bars(&mut guest, &connector, 1024, 768);
    assert_bars(&mut guest, &connector, 800, 600);
    guest.unbind();
    guest.bind();
    guest.assert_drawn();
    guest.reboot();
    guest.assert_drawn();
    let (code, said, out) = guest.interrupt();
    assert_eq!(code, Some(130), "{said}");
    let findings = json(out.path())["findings"].clone();
    assert_eq!(findings, Value::Array(Vec::new()), "{said}");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_healthy_guest_behind_vtd_is_silent() {
    healthy("linux-intel-iommu");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_healthy_guest_behind_virtio_iommu_is_silent() {
    healthy("linux-virtio-iommu");
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn a_healthy_guest_behind_our_virtio_iommu_is_silent() {
    healthy("linux-our-virtio-iommu");
}

/// The first mapping with these rights.
fn mapping(guest: &Guest, rights: &str) -> Option<String> {
    let (_, mappings) = guest.ctl(&["mappings"]);
    let line = mappings.lines().find(|line| line.ends_with(rights))?;
    Some(line.split(' ').next()?.to_owned())
}

/// A device that does what it may not. `heard` makes the guest's own words of
/// an access's direction and address.
fn planted(name: &str, heard: fn(bool, &str) -> String) {
    let mut guest = Guest::without_blobs(name);
    // Outside.
    let (code, said) = guest.ctl(&["read", "0x20000000", "4"]);
    assert_eq!(code, Some(1), "{said}");
    guest.said(&heard(false, "0x20000000"), SOON);
    // VT-d keeps one record of a device at a time, until the guest has read it.
    std::thread::sleep(Duration::from_secs(1));
    // A command that waits keeps its request mapped, to be read only.
    guest.ctl(&["stall"]);
    guest.shell("echo waits > /dev/tty0");
    let request = (0..50).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        mapping(&guest, " r-")
    });
    let request = request.expect("a mapping that may only be read");
    let (code, said) = guest.ctl(&["write", &request, "00"]);
    assert_eq!(code, Some(1), "{said}");
    guest.said(&heard(true, &request), SOON);
    guest.ctl(&["resume"]);
    // What the driver takes back: a resource's backing, and the rings.
    let (_, resources) = guest.ctl(&["resources"]);
    let shown = resources.lines().find(|line| line.contains("on scanout 0"));
    let resource = shown.unwrap().split(' ').next().unwrap().to_owned();
    guest.unbind();
    let (_, said) = guest.ctl(&["replay", &resource]);
    assert!(said.starts_with("0 pages reached"), "{said}");
    let (_, said) = guest.ctl(&["former-rings", "0"]);
    assert_eq!(said.matches("refused").count(), 3, "{said}");
    let (code, said, out) = guest.power_off();
    assert_eq!(code, Some(1), "{said}");
    let report = json(out.path());
    let found: Vec<(&str, &str)> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let blame = &finding["blame"][0];
            assert_eq!(blame["party"], "injected", "{finding}");
            let reason = blame["reason"].as_str().unwrap();
            (finding["id"].as_str().unwrap(), reason)
        })
        .collect();
    let expected = [
        ("dma-unmapped", "read 4 bytes at 0x20000000"),
        ("dma-permission", "write 1 bytes at"),
        ("dma-unmapped", "read the former backing"),
        ("dma-unmapped", "use the rings that queue 0 had"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for ((id, reason), (of, words)) in found.iter().zip(expected) {
        assert!(*id == of && reason.contains(words), "{found:?}");
    }
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn what_a_device_does_behind_vtd_is_found_and_the_guest_hears_of_it() {
    planted("linux-intel-iommu", |write, address| {
        let kind = if write { "Write" } else { "Read" };
        format!("[DMA {kind} NO_PASID] Request device [00:01.0] fault addr {address}")
    });
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn what_a_device_does_behind_virtio_iommu_is_found_and_the_guest_hears_of_it() {
    // QEMU tells no direction.
    planted("linux-virtio-iommu", |_, address| {
        format!("page fault from EP 8 at {address}")
    });
}

#[test]
#[ignore = "needs QEMU and the test guest: scripts/test-qemu"]
fn what_a_device_does_behind_our_virtio_iommu_is_found_and_the_guest_hears_of_it() {
    planted("linux-our-virtio-iommu", |write, address| {
        let kind = if write { 'W' } else { 'R' };
        format!("page fault from EP 8 at {address} [{kind}]")
    });
}
