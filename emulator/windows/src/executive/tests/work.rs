use super::machine::Machine;
use memory::Gva;

const ROUTINE: u64 = 0xffff_f800_1000_1000;

/// IO_TYPE_DEVICE, and a work item for it.
fn item(m: &mut Machine) -> (u64, u64) {
    let device = m.bytes(&3u64.to_le_bytes());
    let item = m.value("IoAllocateWorkItem", &[device]);
    assert_ne!(item, 0);
    (device, item)
}

#[test]
fn io_work_item_runs_on_a_worker_with_its_arguments() {
    let mut m = Machine::new();
    let (device, item) = item(&mut m);

    m.value("IoQueueWorkItem", &[item, ROUTINE, 1, 0x55]);

    let worker = &m.state.threads()[1];
    assert_eq!(worker.start, Gva(ROUTINE));
    assert_eq!(worker.arguments, [device, 0x55]);
    assert_eq!((worker.item, worker.ended), (Some(Gva(item)), None));
}

#[test]
fn extended_work_item_is_its_routines_third_argument() {
    let mut m = Machine::new();
    let (device, item) = item(&mut m);

    m.value("IoQueueWorkItemEx", &[item, ROUTINE, 33, 0x55]);

    assert_eq!(m.state.threads()[1].arguments, [device, 0x55, item]);
}

#[test]
fn worker_is_used_again() {
    let mut m = Machine::new();
    let item = m.space(0x20);
    m.p_write_u64(item + 0x10, ROUTINE);
    let objects: Vec<_> = (1..=3)
        .map(|parameter| {
            m.p_write_u64(item + 0x18, parameter);
            m.value("ExQueueWorkItem", &[item, 1]);
            let worker = m.state.threads()[1].clone();
            assert_eq!(worker.arguments, [parameter]);
            m.state.end_thread(&mut m.p, 1, 0).unwrap();
            worker.object
        })
        .collect();

    assert_eq!(m.state.threads().len(), 2);
    assert!(objects.iter().all(|&object| object == objects[0]));
}

#[test]
fn items_wait_for_a_worker_when_all_are_busy() {
    let mut m = Machine::new();
    let items = [0; 5].map(|_| item(&mut m).1);

    for (context, &item) in (0..).zip(&items) {
        m.value("IoQueueWorkItem", &[item, ROUTINE, 1, context]);
    }
    let workers = m.state.threads().len() - 1;
    let (code, ..) = m.stop("IoQueueWorkItem", &[items[4], ROUTINE, 1, 0]);
    m.state.end_thread(&mut m.p, 2, 0).unwrap();

    assert_eq!((workers, code), (4, 0xe4));
    assert_eq!(m.state.threads()[2].arguments[1], 4);
    // Its routine runs: it can be queued again, and freed.
    m.value("IoFreeWorkItem", &[items[4]]);
}

#[test]
fn worker_that_returns_at_dispatch_level_stops() {
    let mut m = Machine::new();
    let (device, item) = item(&mut m);
    m.value("IoQueueWorkItem", &[item, ROUTINE, 1, 0]);
    assert_eq!(m.state.worker_at_irql(2), None);

    m.state.switch_to(&mut m.p, 1).unwrap();
    let stop = m.state.worker_at_irql(2).unwrap();

    assert_eq!(
        (stop.code, stop.parameters),
        (0xe1, [ROUTINE, 2, device, item])
    );
}
