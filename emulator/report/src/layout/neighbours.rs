//! The map of the pages around a finding.

use super::{Line, Page, Tone};
use crate::model::Found;
use ledger::{Neighbour, Ownership, Reach};
use memory::PAGE_SIZE;

/// Pages of a row.
const ROW: usize = 16;

fn code(page: &Neighbour) -> (String, Tone) {
    let (owner, tone) = match page.owner {
        Ownership::Never => ('.', Tone::Faint),
        Ownership::Owned => ('o', Tone::Good),
        Ownership::Freed => ('f', Tone::Warn),
        Ownership::Recycled => ('r', Tone::Warn),
    };
    let reach = match page.reach {
        Reach::Mapped => 'm',
        Reach::Unmapped => '-',
        Reach::Identity => '=',
        Reach::Never => 'n',
        Reach::Unknown => '?',
    };
    let reachable = matches!(page.reach, Reach::Mapped | Reach::Identity);
    let freed = matches!(page.owner, Ownership::Freed | Ownership::Recycled);
    let owner = if page.same {
        owner.to_ascii_uppercase()
    } else {
        owner
    };
    let tone = if reachable && freed { Tone::Bad } else { tone };
    (format!("{owner}{reach}"), tone)
}

pub(crate) fn draw(page: &mut Page, found: &Found) {
    let Some(access) = &found.finding.access else {
        return;
    };
    let map = &access.surroundings;
    // Where nothing is the driver's and nothing is mapped, it says nothing.
    let telling = |page: &Neighbour| {
        page.owner != Ownership::Never || matches!(page.reach, Reach::Mapped | Reach::Never)
    };
    if !map.pages.iter().any(telling) {
        return;
    }
    let first = map.first.page();
    let centre = access.iova.page().checked_sub(first);
    page.blank();
    page.push(Line::new().with(
        Tone::Bold,
        "  pages around the address, as the device addresses them",
    ));
    for (number, row) in map.pages.chunks(ROW).enumerate() {
        let start = (number * ROW) as u64;
        let here = centre.filter(|centre| (start..start + row.len() as u64).contains(centre));
        let address = first.wrapping_add(start).wrapping_mul(PAGE_SIZE);
        let mark = if here.is_some() { "  =>" } else { "    " };
        let mut line = Line::new()
            .with(Tone::Bad, mark)
            .with(Tone::Faint, format!("{address:#014x}:"));
        for (index, neighbour) in row.iter().enumerate() {
            let at = start + index as u64;
            let (text, tone) = code(neighbour);
            let before = match here {
                Some(centre) if at == centre => "[",
                Some(centre) if at == centre + 1 => "]",
                _ => " ",
            };
            line = line.with(Tone::Bold, before).with(tone, text);
        }
        if here == Some(start + row.len() as u64 - 1) {
            line = line.with(Tone::Bold, "]");
        }
        page.push(line);
    }
    let legend = [
        "1st: o owned by the driver, f freed (quarantine), r freed (recycled), . never its;",
        "     capital: this allocation.  2nd: m mapped, - not mapped, = no isolation, ? not seen",
    ];
    let never = map.pages.iter().any(|page| page.reach == Reach::Never);
    let more = never.then_some(
        "     n never mapped: the page of that physical address, which the device cannot reach",
    );
    for text in legend.into_iter().chain(more) {
        page.push(Line::new().with(Tone::Faint, format!("    {text}")));
    }
}
