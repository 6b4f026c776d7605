use super::machine::Machine;
use crate::executive::spec::kpcr;

#[test]
fn irql_is_raised_and_lowered_with_the_kpcr() {
    let mut m = Machine::new();

    let old = m.value("KfRaiseIrql", &[0xabcd_0002]);
    let inside = m.value("KeGetCurrentIrql", &[]);
    let stored = m.u64(m.state.kpcr().0 + kpcr::IRQL) & 0xff;
    m.value("KeLowerIrql", &[old]);

    assert_eq!((old, inside, stored), (0, 2, 2));
    assert_eq!(m.state.irql(), 0);
}

#[test]
fn cr8_is_the_irql() {
    let mut m = Machine::new();

    assert!(m.state.set_cr8(&mut m.p, 15).unwrap());
    assert!(!m.state.set_cr8(&mut m.p, 16).unwrap());

    assert_eq!(m.state.get_cr8(), 15);
}

#[test]
fn wrong_irql_changes_stop() {
    let table: &[(u8, &str, u64, u64)] = &[
        (2, "KfRaiseIrql", 1, 0x30),
        (0, "KfRaiseIrql", 16, 0x30),
        (3, "KeRaiseIrqlToDpcLevel", 0, 0x30),
        (0, "KeLowerIrql", 1, 0x31),
    ];
    for &(irql, name, level, row) in table {
        let mut m = Machine::new();
        m.state.set_irql(&mut m.p, irql).unwrap();

        let (code, parameters, go_on) = m.stop(name, &[level]);

        assert_eq!((code, parameters[0]), (0xc4, row), "{name}");
        assert_eq!(parameters[1], u64::from(irql), "{name}");
        assert!(go_on.is_some(), "{name}");
    }
}

#[test]
fn spin_lock_raises_and_restores() {
    let mut m = Machine::new();
    let lock = m.space(8);
    m.value("KeInitializeSpinLock", &[lock]);

    let old = m.value("KeAcquireSpinLockRaiseToDpc", &[lock]);
    let held = (m.u64(lock), m.state.irql());
    m.value("KeReleaseSpinLock", &[lock, old]);

    assert_eq!(held, (1, 2));
    assert_eq!((m.u64(lock), m.state.irql()), (0, 0));
}

#[test]
fn second_acquire_is_a_deadlock() {
    let mut m = Machine::new();
    let lock = m.space(8);
    m.value("KeAcquireSpinLockRaiseToDpc", &[lock]);

    let (code, parameters, _) = m.stop("KeAcquireSpinLockAtDpcLevel", &[lock]);

    assert_eq!((code, parameters[0]), (0x0f, lock));
}

#[test]
fn uninitialised_lock_stops() {
    let mut m = Machine::new();
    let lock = m.bytes(&0x6666_6666_6666_6666u64.to_le_bytes());

    let (code, parameters, _) = m.stop("KeAcquireSpinLockRaiseToDpc", &[lock]);

    assert_eq!((code, parameters[1]), (0x0f, 0x6666_6666_6666_6666));
}

#[test]
fn release_of_a_free_lock_stops() {
    let mut m = Machine::new();
    let lock = m.space(8);

    let (code, ..) = m.stop("KeReleaseSpinLock", &[lock, 0]);

    assert_eq!(code, 0x10);
}

#[test]
fn spin_locks_have_irql_rows() {
    let table: &[(u8, &str, u64, u64)] = &[
        (3, "KeAcquireSpinLockRaiseToDpc", 0, 0x42),
        (0, "KeReleaseSpinLock", 1, 0x32),
        (3, "KeReleaseSpinLock", 1, 0x32),
        (0, "KeAcquireSpinLockAtDpcLevel", 0, 0x40),
        (1, "KeReleaseSpinLockFromDpcLevel", 1, 0x41),
    ];
    for &(irql, name, held, row) in table {
        let mut m = Machine::new();
        let lock = m.bytes(&held.to_le_bytes());
        m.state.set_irql(&mut m.p, irql).unwrap();

        let (code, parameters, _) = m.stop(name, &[lock, 0]);

        assert_eq!((code, parameters[0]), (0xc4, row), "{name} at {irql}");
        assert_eq!(parameters[2], lock, "{name}");
    }
}

#[test]
fn queued_lock_keeps_the_old_irql() {
    let mut m = Machine::new();
    let (lock, handle) = (m.space(8), m.space(0x18));
    m.state.set_irql(&mut m.p, 1).unwrap();

    m.value("KeAcquireInStackQueuedSpinLock", &[lock, handle]);
    let inside = m.state.irql();
    m.value("KeReleaseInStackQueuedSpinLock", &[handle]);

    assert_eq!((inside, m.state.irql(), m.u64(lock)), (2, 1, 0));
}

#[test]
fn try_acquire_does_not_wait() {
    let mut m = Machine::new();
    let lock = m.space(8);
    m.state.set_irql(&mut m.p, 2).unwrap();

    let first = m.value("KeTryToAcquireSpinLockAtDpcLevel", &[lock]);
    let second = m.value("KeTryToAcquireSpinLockAtDpcLevel", &[lock]);

    assert_eq!((first, second), (1, 0));
}

fn list(m: &mut Machine) -> (u64, u64) {
    let (head, lock) = (m.space(16), m.space(8));
    m.p_write_u64(head, head);
    m.p_write_u64(head + 8, head);
    (head, lock)
}

#[test]
fn interlocked_list_is_a_queue() {
    let mut m = Machine::new();
    let (head, lock) = list(&mut m);
    let (a, b) = (m.space(16), m.space(16));

    let empty = m.value("ExInterlockedInsertTailList", &[head, a, lock]);
    let last = m.value("ExInterlockedInsertTailList", &[head, b, lock]);
    let taken = [0; 3].map(|_| m.value("ExInterlockedRemoveHeadList", &[head, lock]));

    assert_eq!((empty, last), (0, a));
    assert_eq!(taken, [a, b, 0]);
    assert_eq!(m.u64(lock), 0);
}

#[test]
fn corrupt_list_fails_fast() {
    let mut m = Machine::new();
    let (head, lock) = list(&mut m);
    let a = m.space(16);
    m.value("ExInterlockedInsertHeadList", &[head, a, lock]);
    m.p_write_u64(a + 8, 0xffff_8000_0000_0100);

    let (code, parameters, _) = m.stop("ExInterlockedRemoveHeadList", &[head, lock]);

    assert_eq!((code, parameters[0]), (0x139, 3));
}

#[test]
fn list_under_a_held_lock_is_a_deadlock() {
    let mut m = Machine::new();
    let (head, lock) = list(&mut m);
    m.p_write_u64(lock, 1);

    let (code, ..) = m.stop("ExInterlockedRemoveHeadList", &[head, lock]);

    assert_eq!(code, 0x0f);
}
