//! Mutations that know what an input is made of; bytes at random are
//! LibAFL's own.

use super::faults::{self, Clues};
use super::program::{MAX_FAULTS, Program};
use libafl::Error;
use libafl::corpus::CorpusId;
use libafl::inputs::{BytesInput, HasMutatorBytes, ResizableMutator};
use libafl::mutators::{MutationResult, Mutator};
use libafl::state::HasRand;
use libafl_bolts::Named;
use libafl_bolts::rands::Rand;
use scenario::{Answer, AnswerOf, Hex};
use std::borrow::Cow;

/// Values at which checks go wrong.
const EDGES: [u32; 12] = [
    0,
    1,
    2,
    3,
    0x10,
    0xff,
    0x1000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
];
/// Responses of a virtio-gpu (virtio 1.2 §5.7.6.7): the first of those that
/// are well and of those that are not, and how many there are of each.
const RESPONSES: [(u32, u32); 2] = [(0x1100, 7), (0x1200, 6)];
/// Answers and choices that are hit are among so many.
const NEAR: u64 = 64;
/// The same of answers while the driver starts.
const STARTING: u64 = 32;
/// Bytes of a response before the EDID's size, and before the EDID (virtio
/// 1.2 §5.7.6.8), and of a block of it (VESA E-EDID 3.1).
const EDID_SIZE: u32 = 24;
const EDID: u32 = 32;
const EDID_BLOCK: usize = 128;
/// Longest private data that is made.
const LONGEST: usize = 512;

/// One change of an Escape, an answer, a choice or a fault.
#[derive(Debug)]
pub(crate) struct Structured {
    name: Cow<'static, str>,
    clues: Clues,
}

impl Structured {
    pub fn new(clues: Clues) -> Self {
        Self {
            name: Cow::Borrowed("structured"),
            clues,
        }
    }
}

impl Named for Structured {
    fn name(&self) -> &Cow<'static, str> {
        &self.name
    }
}

impl<S: HasRand> Mutator<BytesInput, S> for Structured {
    fn mutate(&mut self, state: &mut S, input: &mut BytesInput) -> Result<MutationResult, Error> {
        let mut program = Program::decode(input.mutator_bytes());
        let before = program.clone();
        change(&mut program, &self.clues, state.rand_mut());
        if program == before {
            return Ok(MutationResult::Skipped);
        }
        let bytes = program.encode();
        input.resize(bytes.len(), 0);
        input.mutator_bytes_mut().copy_from_slice(&bytes);
        Ok(MutationResult::Mutated)
    }

    fn post_exec(&mut self, _: &mut S, _: Option<CorpusId>) -> Result<(), Error> {
        Ok(())
    }
}

pub(super) fn change(program: &mut Program, clues: &Clues, rand: &mut impl Rand) {
    let count = program.escapes.len();
    let at = rand.below_or_zero(count);
    match rand.below_or_zero(20) {
        0 => {
            if let Some(one) = program.escapes.get(at).cloned() {
                program.escapes.insert(rand.below_or_zero(count + 1), one);
            }
        }
        1 if count > 1 => {
            program.escapes.remove(at);
        }
        2 if count > 1 => program.escapes.swap(at, rand.below_or_zero(count)),
        3 => cut(program.escapes.get_mut(at), rand),
        4 => {
            if let Some(data) = program.escapes.get_mut(at) {
                let more = rand.below_or_zero(64) + 1;
                let fill = rand.next() as u8;
                data.resize((data.len() + more).min(LONGEST), fill);
            }
        }
        5..=8 => set_word(program, at, rand),
        9 => answer(&mut program.answers, NEAR, rand),
        12 => answer(&mut program.early, STARTING, rand),
        13 => edid(program, &clues.edids, rand),
        14 => {
            let before = rand.below_or_zero(count + 1) as u8;
            if !program.power.remove(&before) {
                program.power.insert(before);
            }
        }
        15 if rand.coinflip(0.5) => {
            program.power.pop_last();
        }
        15 => {
            let which = rand.below_or_zero(program.early.len());
            if which < program.early.len() {
                program.early.remove(which);
            }
        }
        16 | 17 if program.faults.len() < MAX_FAULTS => {
            program.faults.push(faults::invent(clues, rand));
        }
        18 => {
            let which = rand.below_or_zero(program.faults.len());
            if which < program.faults.len() {
                program.faults.remove(which);
            }
        }
        16.. => {
            let which = rand.below_or_zero(program.faults.len());
            if let Some(fault) = program.faults.get_mut(which) {
                faults::change(fault, clues, rand);
            }
        }
        10 => {
            let number = rand.next() % NEAR;
            program.choices.insert(number, (rand.next() % 3) as u32 + 1);
        }
        11 if program.answers.is_empty() || rand.coinflip(0.5) => {
            program.choices.pop_last();
        }
        11 => {
            let which = rand.below_or_zero(program.answers.len());
            program.answers.remove(which);
        }
        _ => {}
    }
}

/// Shorter by a byte, a word, a half, or to nothing.
fn cut(data: Option<&mut Vec<u8>>, rand: &mut impl Rand) {
    let Some(data) = data else { return };
    let length = data.len();
    data.truncate(match rand.below_or_zero(6) {
        0 => 0,
        1 => length / 2,
        2 => length.saturating_sub(1),
        3 => length.saturating_sub(4),
        4 => length.saturating_sub(8),
        _ => rand.below_or_zero(length),
    });
}

/// A word of an Escape becomes an edge, a neighbour, or another word that is
/// somewhere.
fn set_word(program: &mut Program, at: usize, rand: &mut impl Rand) {
    let other = program
        .escapes
        .get(rand.below_or_zero(program.escapes.len()));
    let other = other.and_then(|data| word(data, rand.below_or_zero(data.len() / 4)));
    let Some(data) = program.escapes.get_mut(at) else {
        return;
    };
    let index = rand.below_or_zero(data.len() / 4);
    let Some(now) = word(data, index) else { return };
    let new = match rand.below_or_zero(6) {
        0 => now.wrapping_add(1),
        1 => now.wrapping_sub(1),
        2 => other.unwrap_or(0),
        3 => rand.next() as u32 % 32,
        4 => now ^ 1 << (rand.next() % 32),
        _ => edge(rand),
    };
    if let Some(place) = data.get_mut(4 * index..4 * index + 4) {
        place.copy_from_slice(&new.to_le_bytes());
    }
}

/// Another answer is written over, of the first so many.
fn answer(answers: &mut Vec<Answer>, first: u64, rand: &mut impl Rand) {
    let of = AnswerOf::ALL[rand.below_or_zero(AnswerOf::ALL.len())];
    let number = rand.next() % first;
    let (at, value) = match (of, rand.below_or_zero(3)) {
        (AnswerOf::Response, 0) => {
            let (first, count) = RESPONSES[rand.below_or_zero(RESPONSES.len())];
            (0, first + rand.next() as u32 % count)
        }
        (AnswerOf::Response, _) => (4 * (rand.next() as u32 % 64), edge(rand)),
        (AnswerOf::Used | AnswerOf::Configuration, _) => (0, edge(rand)),
    };
    let data = Hex(value.to_le_bytes().to_vec());
    write_over(
        answers,
        Answer {
            of,
            number,
            at,
            data,
        },
    );
}

/// The answer is written over so, and no other way.
fn write_over(answers: &mut Vec<Answer>, new: Answer) {
    answers.retain(|answer| (answer.of, answer.number) != (new.of, new.number));
    answers.push(new);
}

/// The EDID that the driver meets as it starts becomes another: its size, a
/// few of its bytes, or a whole block, of edges and with a good checksum.
fn edid(program: &mut Program, edids: &[u64], rand: &mut impl Rand) {
    let Some(&number) = edids.get(rand.below_or_zero(edids.len())) else {
        return answer(&mut program.early, STARTING, rand);
    };
    let (at, data) = match rand.below_or_zero(3) {
        0 => (EDID_SIZE, edge(rand).to_le_bytes().to_vec()),
        1 => {
            let at = EDID + rand.next() as u32 % (2 * EDID_BLOCK as u32);
            let few = rand.below_or_zero(8) + 1;
            (at, (0..few).map(|_| edge(rand) as u8).collect())
        }
        _ => {
            let mut block = vec![0u8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
            block.resize_with(EDID_BLOCK - 1, || edge(rand) as u8);
            let sum = block.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            block.push(sum.wrapping_neg());
            (EDID, block)
        }
    };
    let new = Answer {
        of: AnswerOf::Response,
        number,
        at,
        data: Hex(data),
    };
    write_over(&mut program.early, new);
}

fn edge(rand: &mut impl Rand) -> u32 {
    EDGES[rand.below_or_zero(EDGES.len())]
}

fn word(data: &[u8], index: usize) -> Option<u32> {
    let bytes = data.get(4 * index..4 * index + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
