#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn remarks(text: &str, secure_mode: bool) -> Vec<Remark> {
    let mut remarks = Vec::new();
    Inf::parse(text.as_bytes()).remarks(secure_mode, &mut remarks);
    remarks
}

fn worst(remarks: &[Remark], id: &str) -> Option<Severity> {
    remarks
        .iter()
        .filter(|r| r.id == id)
        .map(|r| r.severity)
        .max()
}

const GOOD: &str = "[Version]\nClass = Display\n[Models]\n%D% = Install, PCI\\VEN_1AF4&DEV_1050\n\
                    [Parameters]\nHKR,Parameters,DmaRemappingCompatible,0x00010001,0 ; out\n\
                    [Strings]\nD = \"a device\"";

#[test]
fn a_sound_inf_gives_notes_only() {
    let remarks = remarks(GOOD, true);
    assert!(
        remarks.iter().all(|r| r.severity == Severity::Note),
        "{remarks:?}"
    );
    assert!(
        remarks
            .iter()
            .any(|r| r.text.contains("PCI\\VEN_1AF4&DEV_1050"))
    );
}

#[test]
fn each_fault_of_an_inf_is_told() {
    for (from, to, secure, id, severity) in [
        (
            "Class = Display",
            "Class = Net",
            false,
            "inf-class",
            Severity::Error,
        ),
        ("Class = Display", "", false, "inf-class", Severity::Error),
        (
            "PCI\\VEN_1AF4&DEV_1050",
            "ROOT\\X",
            false,
            "inf-ids",
            Severity::Warning,
        ),
        (
            ",0 ; out",
            ",7",
            false,
            "inf-dma-remapping",
            Severity::Error,
        ),
        (
            ",0 ; out",
            ",3",
            true,
            "inf-dma-remapping",
            Severity::Warning,
        ),
        (",0 ; out", ",3", false, "inf-dma-remapping", Severity::Note),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD);
        assert_eq!(worst(&remarks(&text, secure), id), Some(severity), "{to:?}");
    }
}

#[test]
fn an_inf_in_utf_16_is_read() {
    let bytes: Vec<u8> = [0xff, 0xfe]
        .into_iter()
        .chain(GOOD.encode_utf16().flat_map(u16::to_le_bytes))
        .collect();
    assert_eq!(Inf::parse(&bytes), Inf::parse(GOOD.as_bytes()));
}

proptest! {
    #[test]
    fn no_bytes_make_the_inf_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut remarks = Vec::new();
        Inf::parse(&bytes).remarks(true, &mut remarks);
    }

    #[test]
    fn percent_signs_never_loop(text in "[%a-c]{0,40}") {
        let inf = format!("[strings]\na=%a%%b%\nb=%a%\n[x]\n{text}");
        let _ = Inf::parse(inf.as_bytes());
    }
}
