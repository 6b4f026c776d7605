//! What each request does, and with which status it is refused.

use super::*;

const RW: u32 = code::MAP_READ | code::MAP_WRITE;

#[test]
fn an_endpoint_in_no_domain_reaches_nothing() {
    let w = World::new(Scenario::for_test());
    assert_eq!(w.read(GPU, 1), Err(FaultReason::ContextNotPresent));
}

#[test]
fn a_mapping_is_reached_by_every_endpoint_of_its_domain() {
    let w = World::attached();
    assert_eq!(w.map(1, 100, 2, 5), Status::Ok);
    assert_eq!([w.read(GPU, 100), w.read(GPU, 101)], [Ok(5), Ok(6)]);
    assert_eq!(w.read(OTHER, 100), Err(FaultReason::ContextNotPresent));
    assert_eq!(w.attach(1, OTHER), Status::Ok);
    assert_eq!(w.read(OTHER, 101), Ok(6));
}

#[test]
fn the_rights_of_a_mapping_are_kept() {
    let w = World::attached();
    w.send(&map(1, span(1, 1), 0x3000, code::MAP_READ));
    w.send(&map(1, span(2, 1), 0x3000, code::MAP_WRITE));
    w.send(&map(1, span(3, 1), 0x3000, 0));
    assert_eq!(w.read(GPU, 1), Ok(3));
    assert_eq!(w.write(GPU, 1), Err(FaultReason::WriteDenied));
    assert_eq!(w.write(GPU, 2), Ok(()));
    assert_eq!(w.read(GPU, 2), Err(FaultReason::ReadDenied));
    assert_eq!(w.read(GPU, 3), Err(FaultReason::ReadDenied));
}

#[test]
fn unmaps_are_as_the_specification_shows() {
    // §5.13.6.4: mappings, what is unmapped, and the status. In pages.
    type Pages = (u64, u64);
    let rows: [(&[Pages], Pages, Status); 9] = [
        (&[], (0, 5), Status::Ok),
        (&[(0, 10)], (0, 10), Status::Ok),
        (&[(0, 5), (5, 5)], (0, 10), Status::Ok),
        (&[(0, 10)], (0, 5), Status::Range),
        (&[(0, 5), (5, 5)], (0, 5), Status::Ok),
        (&[(0, 5)], (0, 10), Status::Ok),
        (&[(0, 5), (10, 5)], (0, 15), Status::Ok),
        (&[(0, 10)], (5, 10), Status::Range),
        (&[(0, 10)], (3, 4), Status::Range),
    ];
    for (mappings, (page, count), status) in rows {
        let w = World::attached();
        for &(page, count) in mappings {
            assert_eq!(w.map(1, page, count, 0), Status::Ok);
        }
        assert_eq!(w.unmap(1, page, count), status, "{mappings:?}");
        for &(first, length) in mappings {
            for at in first..first + length {
                let gone = status == Status::Ok && (page..page + count).contains(&at);
                assert_eq!(w.read(GPU, at).is_err(), gone, "{mappings:?}, page {at}");
            }
        }
    }
}

#[test]
fn what_cannot_be_done_has_its_status_and_changes_nothing() {
    let w = World::attached();
    assert_eq!(w.map(1, 4, 4, 0), Status::Ok);
    w.send(&attach(7, OTHER, code::ATTACH_BYPASS));
    let before = w.unit.save();
    let nobody = RequesterId::new(3, 0, 0);
    let with = |mut bytes: Vec<u8>, at: usize, byte: u8| {
        bytes[at] = byte;
        bytes
    };
    let top = u64::MAX;
    let rows = [
        (
            "reserved bits",
            with(attach(2, GPU, 0), 16, 1),
            Status::Inval,
        ),
        ("an unknown flag", attach(2, GPU, 2), Status::Inval),
        ("no such endpoint", attach(2, nobody, 0), Status::NoEnt),
        (
            "an endpoint beyond bdf",
            with(attach(2, GPU, 0), 11, 1),
            Status::NoEnt,
        ),
        (
            "a domain out of range",
            attach(DOMAIN_LAST + 1, GPU, 0),
            Status::Range,
        ),
        ("not as the domain is", attach(1, OTHER, 1), Status::Inval),
        ("not as that one is", attach(7, GPU, 0), Status::Inval),
        ("no such endpoint", detach(1, nobody), Status::NoEnt),
        ("another domain", detach(2, GPU), Status::Inval),
        ("no such domain", detach(u32::MAX, GPU), Status::Inval),
        ("no such domain", map(9, span(0, 1), 0, RW), Status::NoEnt),
        ("a bypass domain", map(7, span(0, 1), 0, RW), Status::Inval),
        ("an unknown flag", map(1, span(0, 1), 0, 8), Status::Inval),
        ("first unaligned", map(1, (1, 0xfff), 0, RW), Status::Range),
        ("last unaligned", map(1, (0, 0x1000), 0, RW), Status::Range),
        ("target unaligned", map(1, span(0, 1), 1, RW), Status::Range),
        ("backwards", map(1, (0x2000, 0xfff), 0, RW), Status::Inval),
        ("beyond the input", map(1, (0, top), 0, RW), Status::Range),
        (
            "at the last page",
            map(1, (top - 0xfff, top), 0, RW),
            Status::Range,
        ),
        (
            "wraps round",
            map(1, span(0, 2), top - 0xfff, RW),
            Status::Range,
        ),
        ("over another", map(1, span(7, 2), 0, RW), Status::Inval),
        ("inside another", map(1, span(5, 1), 0, RW), Status::Inval),
        ("around another", map(1, span(3, 6), 0, RW), Status::Inval),
        ("the same again", map(1, span(4, 4), 0, RW), Status::Inval),
        (
            "the messages' range",
            map(1, span(0xfee00, 1), 0, RW),
            Status::Inval,
        ),
        (
            "around it",
            map(1, (0x9000, INPUT_LAST), 0, RW),
            Status::Inval,
        ),
        ("no such domain", unmap(9, span(0, 1)), Status::NoEnt),
        ("a bypass domain", unmap(7, span(0, 1)), Status::Inval),
        (
            "reserved bits",
            with(unmap(1, span(4, 4)), 24, 1),
            Status::Inval,
        ),
        ("backwards", unmap(1, (0x8000, 0x3fff)), Status::Inval),
        ("part of a page", unmap(1, (0x4000, 0x4000)), Status::Range),
        ("all but a byte", unmap(1, (0x4001, top)), Status::Range),
    ];
    for (what, request, status) in rows {
        assert_eq!(w.send(&request), status, "{what}: {request:?}");
        assert_eq!(w.unit.save(), before, "{what}");
    }
}

#[test]
fn what_is_no_request_is_given_back_as_it_came() {
    let w = World::attached();
    let all = feature::ALL;
    let no_map = all & !feature::MAP_UNMAP;
    let whole = [
        attach(2, GPU, 0),
        detach(1, GPU),
        map(1, span(0, 1), 0, RW),
        unmap(1, span(0, 1)),
        probe(GPU),
    ];
    let mut rows = vec![
        (vec![], all, 4),
        (vec![0; 80], all, 4),
        (vec![6; 80], all, 4),
        (vec![0xff; 80], all, 4),
        (map(1, span(0, 1), 0, RW), no_map, 4),
        (unmap(1, span(0, 1)), no_map, 4),
        (probe(GPU), all & !feature::PROBE, 200),
    ];
    for request in whole {
        rows.push((request[..request.len() - 1].to_vec(), all, 200));
        for room in 0..4 {
            rows.push((request.clone(), all, room));
        }
    }
    let before = w.unit.save();
    for (request, features, room) in rows {
        let written = w.unit.request(w.env(), features, &request, room);
        assert!(written.is_empty(), "{request:?}");
        assert_eq!(w.unit.save(), before, "{request:?}");
    }
}

#[test]
fn flags_of_features_that_were_not_taken_are_unknown() {
    let w = World::attached();
    let mmio = map(1, span(0, 1), 0, RW | code::MAP_MMIO);
    let without = feature::ALL & !feature::MMIO;
    assert_eq!(w.send_with(without, &mmio), Status::Inval);
    assert_eq!(w.send(&mmio), Status::Ok);
    let bypass = attach(2, OTHER, code::ATTACH_BYPASS);
    let without = feature::ALL & !feature::BYPASS_CONFIG;
    assert_eq!(w.send_with(without, &bypass), Status::Inval);
    assert_eq!(w.send(&bypass), Status::Ok);
}

#[test]
fn head_and_detach_and_probe_ignore_what_is_reserved() {
    let w = World::attached();
    let mut request = detach(1, GPU);
    request[1..4].fill(0xff);
    request[12..].fill(0xff);
    assert_eq!(w.send(&request), Status::Ok);
    let mut request = probe(GPU);
    request[8..].fill(0xff);
    let written = w.unit.request(w.env(), feature::ALL, &request, 68);
    assert_eq!(written[64..], [0; 4]);
}

#[test]
fn probing_tells_of_the_messages_range() {
    let w = World::attached();
    let written = w.unit.request(w.env(), feature::ALL, &probe(OTHER), 1000);
    let mut wanted = vec![1, 0, 20, 0, 1, 0, 0, 0];
    wanted.extend(0xfee0_0000u64.to_le_bytes());
    wanted.extend(0xfeef_ffffu64.to_le_bytes());
    wanted.resize(PROPERTIES + 4, 0);
    assert_eq!(written, wanted);
}

#[test]
fn probing_with_little_room_or_of_nobody_writes_no_property() {
    let w = World::attached();
    let nobody = probe(RequesterId::new(3, 0, 0));
    for (request, room, status) in [
        (probe(GPU), 67, Status::Inval),
        (probe(GPU), 4, Status::Inval),
        (nobody, 68, Status::NoEnt),
    ] {
        let written = w.unit.request(w.env(), feature::ALL, &request, room);
        let mut wanted = vec![0; room];
        wanted[room - 4] = status as u8;
        assert_eq!(written, wanted);
    }
}

#[test]
fn a_detached_endpoint_reaches_nothing_and_its_domain_is_forgotten() {
    let w = World::attached();
    w.map(1, 0, 1, 4);
    assert_eq!(w.send(&detach(1, GPU)), Status::Ok);
    assert_eq!(w.read(GPU, 0), Err(FaultReason::ContextNotPresent));
    assert_eq!(w.attach(1, GPU), Status::Ok);
    assert_eq!(w.read(GPU, 0), Err(FaultReason::ReadDenied));
    assert!(w.unit.mappings(w.env(), GPU).is_empty());
}

#[test]
fn attaching_elsewhere_detaches_first() {
    let w = World::attached();
    w.map(1, 0, 1, 4);
    assert_eq!(w.attach(2, GPU), Status::Ok);
    assert_eq!(w.read(GPU, 0), Err(FaultReason::ReadDenied));
    assert_eq!(w.map(1, 1, 1, 4), Status::NoEnt);
}

#[test]
fn attaching_again_keeps_what_is_mapped() {
    let w = World::attached();
    w.map(1, 0, 1, 4);
    assert_eq!(w.attach(1, GPU), Status::Ok);
    assert_eq!(w.read(GPU, 0), Ok(4));
}

#[test]
fn bypass_lets_everything_through_to_where_it_says() {
    let w = World::new(Scenario::for_test());
    w.unit.set_bypass(w.env(), true);
    assert_eq!(w.unit.config()[36], 1);
    assert_eq!(w.read(GPU, 3), Ok(3));
    assert_eq!(w.read(GPU, PAGES), Err(FaultReason::NotMemory));
    assert_eq!(w.attach(1, GPU), Status::Ok);
    assert_eq!(w.read(GPU, 3), Err(FaultReason::ReadDenied));
    w.send(&attach(2, GPU, code::ATTACH_BYPASS));
    w.unit.set_bypass(w.env(), false);
    assert_eq!(w.read(GPU, 3), Ok(3));
    assert_eq!(w.read(OTHER, 3), Err(FaultReason::ContextNotPresent));
}

#[test]
fn a_reset_takes_every_endpoint_out_and_keeps_bypass() {
    let w = World::attached();
    w.map(1, 0, 1, 4);
    let _ = w.read(GPU, 9);
    w.unit.set_bypass(w.env(), true);
    w.unit.reset(w.env());
    assert!(w.unit.bypass());
    assert_eq!(w.unit.next_fault(), None);
    assert_eq!(w.read(GPU, 4), Ok(4));
    assert_eq!(w.map(1, 1, 1, 4), Status::NoEnt);
}

#[test]
fn the_configuration_is_as_it_is_used() {
    let w = World::attached();
    let config = w.unit.config();
    let long = |at: usize| u64::from_le_bytes(config[at..at + 8].try_into().unwrap());
    assert_eq!(long(0).trailing_zeros(), 12);
    assert_eq!((long(8), long(16)), (0, INPUT_LAST));
    assert_eq!(long(24), u64::from(DOMAIN_LAST) << 32);
    assert_eq!(long(32), PROPERTIES as u64);
}

#[test]
fn mappings_and_their_ends_are_in_the_journal_of_each_endpoint() {
    let w = World::attached();
    w.map(1, 0, 2, 4);
    w.attach(1, OTHER);
    w.unmap(1, 0, 9);
    w.map(1, 3, 1, 4);
    w.send(&detach(1, OTHER));
    let told: Vec<_> = w
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Map { device, length, .. } => Some((device, true, length / PAGE_SIZE)),
            Event::Unmap {
                device, dropped, ..
            } => Some((device, false, dropped)),
            _ => None,
        })
        .collect();
    let wanted = [
        (GPU, true, 2),
        (OTHER, true, 2),
        (GPU, false, 2),
        (OTHER, false, 2),
        (GPU, true, 1),
        (OTHER, true, 1),
        (OTHER, false, 1),
    ];
    assert_eq!(told, wanted);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_survived(data in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
        crate::fuzzing::fuzz_requests(&data);
    }
}
