//! The same guest behind QEMU's VT-d, QEMU's virtio-iommu and ours: what it
//! does with a healthy driver is silent, and what a device does that is told
//! to misbehave is found, each behind each. `scripts/test-qemu` runs them.
#![allow(clippy::unwrap_used)]

#[macro_use]
mod support;

use serde_json::Value;
use support::guest::{Guest, refusal};
use support::json;

behind_each! {
    a_healthy_guest_is_silent
    what_a_device_does_is_found_and_the_guest_hears_of_it
}

/// Colours of the upper part of the SMPTE bars, left to right, as libdrm's
/// pattern has them.
const BARS: [u32; 7] = [
    0xc0c0c0, 0xc0c000, 0x00c0c0, 0x00c000, 0xc000c0, 0xc00000, 0x0000c0,
];

/// The connector that modetest can show something on.
fn connector(guest: &mut Guest) -> String {
    let said = guest.shell("modetest -M virtio_gpu -c");
    let connected = said.lines().find(|line| line.contains("\tconnected\t"));
    let connector = connected.unwrap_or_else(|| panic!("no connector: {said}"));
    for mode in ["1024x768", "800x600"] {
        assert!(said.contains(mode), "{mode} is not offered: {said}");
    }
    connector.split_whitespace().next().unwrap().to_owned()
}

/// Let modetest show its bars in a mode, and do something meanwhile.
fn with_bars<T>(
    guest: &mut Guest,
    connector: &str,
    (width, height): (usize, usize),
    meanwhile: impl FnOnce(&mut Guest) -> T,
) -> T {
    // It shows them until it reads a line, or the end of its input.
    guest.shell("rm -f /wait; mkfifo /wait");
    guest.shell(&format!(
        "{{ modetest -M virtio_gpu -s {connector}:{width}x{height} < /wait > /shown 2>&1 & }}"
    ));
    guest.shell("exec 9> /wait");
    guest.shows(|wide, pixels| {
        if (wide, pixels.len()) != (width, width * height) {
            return Err(format!("{} pixels, {wide} a line", pixels.len()));
        }
        for line in [height / 10, height / 2] {
            let shown: Vec<u32> = (0..BARS.len())
                .map(|bar| pixels[line * width + (2 * bar + 1) * width / 14])
                .collect();
            if shown != BARS {
                return Err(format!("line {line} of {width}x{height}: {shown:06x?}"));
            }
        }
        Ok(())
    });
    let done = meanwhile(guest);
    guest.shell("exec 9>&-; wait");
    done
}

/// All that a healthy guest does with its display.
fn a_healthy_guest_is_silent(name: &str) {
    let mut guest = Guest::without_blobs(name);
    let log = guest.log();
    assert!(log.contains("guest: driver virtio-pci"), "{log}");
    assert!(log.contains("in iommu group"), "{log}");
    assert!(log.contains("guest: fb0 virtio_gpudrmfb 1024,768"), "{log}");
    guest.assert_drawn();
    let connector = connector(&mut guest);
    with_bars(&mut guest, &connector, (1024, 768), |_| ());
    with_bars(&mut guest, &connector, (800, 600), |_| ());
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

fn number(text: &str) -> u64 {
    u64::from_str_radix(&text[2..], 16).unwrap()
}

/// A device that does what it may not: each access is found, blamed on the
/// order, and refused by the guest's own remapping unit, as the guest says.
///
/// What goes by a translation that was kept (`stale-iotlb`) no unit refuses,
/// and no guest hears of: the device never asks.
fn what_a_device_does_is_found_and_the_guest_hears_of_it(machine: &str) {
    let mut guest = Guest::without_blobs(machine);
    let heard = |write| refusal(machine, write);
    let (read_words, write_words) = (heard(false), heard(true));
    let read = (&read_words.0[..], read_words.1);
    let write = (&write_words.0[..], write_words.1);
    // Outside.
    let outside = guest.refused(&["read", "0x20000000", "4"], read).1;
    assert_eq!(outside, 0x2000_0000);
    let outside = guest.refused(&["write", "0x21000000", "aabb"], write).1;
    assert_eq!(outside, 0x2100_0000);
    // What is mapped is reached by both ways alike.
    let first = guest.mapping("").unwrap();
    let direct = guest.ctl(&["read", &first, "16"]);
    assert_eq!(direct.0, Some(0), "{direct:?}");
    assert_eq!(direct, guest.ctl(&["peer-read", &first, "16"]));
    // A command that waits keeps its request mapped, to be read only.
    guest.ctl(&["stall"]);
    guest.shell("echo waits > /dev/tty0");
    let what = "a mapping that may only be read";
    let request = guest.wait(what, |guest| guest.mapping(" r-"));
    let at = guest.refused(&["write", &request, "00"], write).1;
    assert_eq!(at >> 12, number(&request) >> 12);
    guest.ctl(&["resume"]);
    // A resource that the driver has unreferenced, while it goes on.
    let connector = connector(&mut guest);
    let resource = with_bars(&mut guest, &connector, (800, 600), |guest| {
        guest.shown().unwrap()
    });
    let replay = ["replay", &resource];
    guest.wait("the resource's pages to be unmapped", |guest| {
        let (_, said) = guest.ctl(&replay);
        said.starts_with("0 pages reached").then_some(())
    });
    let (said, backing) = guest.refused(&replay, read);
    assert!(said.starts_with("0 pages reached"), "{said}");
    // Commands come and go, and their mappings with them.
    let kept = guest.wait("a mapping that can be kept", |guest| {
        let at = guest.mapping(" rw")?;
        let (_, said) = guest.ctl(&["hold", &at, "4096"]);
        (said == "1 pages\n").then_some(at)
    });
    // The rings, after the reset. Linux takes the bus from a device without a
    // driver: one that is so far gone must be refused by more than that.
    guest.unbind();
    let (_, said) = guest.ctl(&["former-rings", "0"]);
    assert_eq!(said.matches("refused").count(), 3, "{said}");
    guest.master_the_bus();
    let (said, ring) = guest.refused(&["former-rings", "0"], read);
    assert_eq!(said.matches("refused").count(), 3, "{said}");
    let (code, said) = guest.ctl(&["late-read", &kept, "16"]);
    assert_eq!((code, said.trim().len()), (Some(0), 32), "{said}");
    let (_, said) = guest.ctl(&["findings"]);
    assert!(said.contains("stale-iotlb"), "{said}");
    let (code, said, out) = guest.power_off();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.matches("doorbell").count(), 1, "those counted: {said}");
    let report = json(out.path());
    let found: Vec<(&str, &str, u64)> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let blame = &finding["blame"][0];
            assert_eq!(blame["party"], "injected", "{finding}");
            (
                finding["id"].as_str().unwrap(),
                blame["reason"].as_str().unwrap(),
                number(finding["iova"].as_str().unwrap()),
            )
        })
        .collect();
    let expected = [
        ("dma-unmapped", "read 4 bytes at 0x20000000", 0x2000_0000),
        ("dma-unmapped", "write 2 bytes at 0x21000000", 0x2100_0000),
        ("dma-permission", "write 1 bytes at", number(&request)),
        ("dma-unmapped", "read the former backing", backing),
        ("dma-unmapped", "use the rings that queue 0 had", ring),
        (
            "stale-iotlb",
            "by a translation that was kept",
            number(&kept),
        ),
    ];
    assert_eq!(found.len(), expected.len(), "{found:x?}");
    for ((id, reason, iova), (of, words, at)) in found.iter().zip(expected) {
        // VT-d tells a fault's page only.
        assert!(*id == of && reason.contains(words), "{found:x?}");
        assert_eq!(iova >> 12, at >> 12, "{reason}: {found:x?}");
    }
}
