//! Epilogs.
//!
//! Unwind codes describe prologs only. An address inside an epilog is
//! recognised by its instructions, of which the x64 convention allows few: an
//! optional `add rsp, n` or `lea rsp, [frame + n]`, pops, then `ret` or a jump
//! out of the function (Microsoft, "x64 prolog and epilog").

use super::spec::{Bytes, RSP, RuntimeFunction};

/// A stack adjustment, at most 15 pops (with their prefixes), a return.
const MAX_EPILOG_BYTES: usize = 8 + 15 * 2 + 6;

/// What remains of an epilog, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// RSP += value.
    Add(i32),
    /// RSP = frame register + value.
    FromFrame(i32),
    /// Pop into the register of this number.
    Pop(usize),
}

/// The rest of the epilog at `rva`, or `None` if the instructions there are no
/// epilog of `function`. `frame_register` is 0 if there is none.
pub(crate) fn parse(
    image: Bytes<'_>,
    function: RuntimeFunction,
    rva: u32,
    frame_register: usize,
) -> Option<Vec<Step>> {
    let left = usize::try_from(function.end.checked_sub(rva)?).ok()?;
    let code = image.slice(usize::try_from(rva).ok()?, left.min(MAX_EPILOG_BYTES))?;
    let (mut at, first) = adjustment(code, frame_register)?;
    let mut steps: Vec<Step> = first.into_iter().collect();
    loop {
        let rest = code.get(at..)?;
        if leaves(rest, function, rva.checked_add(u32::try_from(at).ok()?)?) {
            return Some(steps);
        }
        let (length, register) = pop(rest)?;
        steps.push(Step::Pop(register));
        at += length;
    }
}

/// An adjustment of RSP at the start of `code`: its length and meaning, zero
/// and nothing if there is none.
fn adjustment(code: &[u8], frame_register: usize) -> Option<(usize, Option<Step>)> {
    Some(match *code {
        [0x48, 0x83, 0xc4, n, ..] => (4, Some(Step::Add(i32::from(n.cast_signed())))),
        [0x48, 0x81, 0xc4, a, b, c, d, ..] => {
            (7, Some(Step::Add(i32::from_le_bytes([a, b, c, d]))))
        }
        // lea rsp, [register + displacement]; REX.B extends the register. A
        // base of R12 would need a SIB byte and is not accepted.
        [rex @ (0x48 | 0x49), 0x8d, mod_rm, ref rest @ ..] if mod_rm & 0x38 == 0x20 => {
            let base = usize::from(mod_rm & 7) | usize::from(rex & 1) << 3;
            if frame_register == 0 || base != frame_register || mod_rm & 7 == 4 {
                return None;
            }
            match (mod_rm >> 6, rest) {
                (1, &[n, ..]) => (4, Some(Step::FromFrame(i32::from(n.cast_signed())))),
                (2, &[a, b, c, d, ..]) => {
                    (7, Some(Step::FromFrame(i32::from_le_bytes([a, b, c, d]))))
                }
                _ => return None,
            }
        }
        _ => (0, None),
    })
}

/// A pop of a register other than RSP: its length and the register.
fn pop(code: &[u8]) -> Option<(usize, usize)> {
    let (length, register) = match *code {
        [op @ 0x58..=0x5f, ..] => (1, usize::from(op & 7)),
        [0x41, op @ 0x58..=0x5f, ..] => (2, usize::from(op & 7) | 8),
        _ => return None,
    };
    (register != RSP).then_some((length, register))
}

/// True if the instruction at `rva` leaves the function: a return, or a jump
/// that is a tail call.
fn leaves(code: &[u8], function: RuntimeFunction, rva: u32) -> bool {
    let outside = |length: u32, displacement: i32| {
        let target = rva.wrapping_add(length).wrapping_add_signed(displacement);
        // A jump to the function's own start is a tail call to itself.
        target <= function.begin || target >= function.end
    };
    match *code {
        [0xc3, ..] | [0xc2, _, _, ..] | [0xf3, 0xc3, ..] => true,
        [0xeb, n, ..] => outside(2, i32::from(n.cast_signed())),
        [0xe9, a, b, c, d, ..] => outside(5, i32::from_le_bytes([a, b, c, d])),
        // jmp [memory] with mod 00, as the convention asks, and jmp register,
        // which compilers write with REX.W to mark a tail call.
        [0xff, mod_rm, ..] => mod_rm & 0xf8 == 0x20,
        [0x48..=0x4f, 0xff, mod_rm, ..] => matches!(mod_rm & 0xf8, 0x20 | 0xe0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: RuntimeFunction = RuntimeFunction {
        begin: 0,
        end: 64,
        unwind_info: 0,
    };

    fn parsed(code: &[u8], frame_register: usize) -> Option<Vec<Step>> {
        let mut image = vec![0xcc; 64];
        image[16..16 + code.len()].copy_from_slice(code);
        parse(Bytes(&image), FUNCTION, 16, frame_register)
    }

    #[test]
    fn epilogs_are_recognised() {
        let rows: [(&[u8], usize, &[Step]); 10] = [
            (&[0xc3], 0, &[]),
            (&[0x48, 0x83, 0xc4, 0x28, 0xc3], 0, &[Step::Add(0x28)]),
            (&[0x48, 0x83, 0xc4, 0x80, 0xc3], 0, &[Step::Add(-128)]),
            (
                &[0x48, 0x81, 0xc4, 0, 1, 0, 0, 0x5b, 0xc3],
                0,
                &[Step::Add(256), Step::Pop(3)],
            ),
            (&[0x5e, 0x41, 0x5e, 0xc3], 0, &[Step::Pop(6), Step::Pop(14)]),
            (
                &[0x48, 0x8d, 0x65, 0x10, 0x5d, 0xc3],
                5,
                &[Step::FromFrame(16), Step::Pop(5)],
            ),
            (
                &[0x48, 0x8d, 0x65, 0xf0, 0x5d, 0xc3],
                5,
                &[Step::FromFrame(-16), Step::Pop(5)],
            ),
            (&[0x5b, 0xe9, 0, 1, 0, 0], 0, &[Step::Pop(3)]),
            (&[0x5b, 0x48, 0xff, 0xe0], 0, &[Step::Pop(3)]),
            (&[0xff, 0x25, 0, 0, 0, 0], 0, &[]),
        ];
        for (code, frame_register, steps) in rows {
            assert_eq!(
                parsed(code, frame_register).as_deref(),
                Some(steps),
                "{code:02x?}"
            );
        }
    }

    #[test]
    fn other_code_is_no_epilog() {
        let rows: [(&[u8], usize); 6] = [
            // A jump that stays inside the function.
            (&[0xeb, 0x02], 0),
            (&[0x90, 0xc3], 0),
            // The frame register is another one, or there is none.
            (&[0x48, 0x8d, 0x65, 0x10, 0xc3], 3),
            (&[0x48, 0x8d, 0x65, 0x10, 0xc3], 0),
            // pop rsp
            (&[0x5c, 0xc3], 0),
            // jmp rax without REX.W: a jump table.
            (&[0xff, 0xe0], 0),
        ];
        for (code, frame_register) in rows {
            assert_eq!(parsed(code, frame_register), None, "{code:02x?}");
        }
    }

    #[test]
    fn epilog_cut_by_the_end_of_the_function_is_none() {
        let mut image = vec![0x5b; 64];
        image[63] = 0x48;
        assert_eq!(parse(Bytes(&image), FUNCTION, 60, 0), None);
    }
}
