//! An audit for a terminal.

use super::draw::{Shade, shades};
use super::pieces::{Piece, pages};
use super::{Audit, Tables};
use memory::PAGE_SIZE;
use std::fmt::{self, Write};

/// Places in a line of the map, and lines.
const COLUMNS: u64 = 64;
const LINES: u64 = 16;
/// Ranges listed of each kind.
const LISTED: usize = 8;

/// In words and characters.
#[must_use]
pub fn render(audit: &Audit) -> String {
    let mut text = String::new();
    // A String takes everything.
    let _ = write(&mut text, audit);
    text
}

fn write(out: &mut String, audit: &Audit) -> fmt::Result {
    let all = pages(&audit.reach);
    let count = |keep: fn(&Piece) -> bool| -> u64 {
        audit
            .reach
            .iter()
            .filter(|p| keep(p))
            .map(Piece::pages)
            .sum()
    };
    let share = 100.0 * audit.reached_pages as f64 / audit.guest_pages.max(1) as f64;
    writeln!(
        out,
        "Device {} can reach {} of {} pages of guest memory ({share:.2} %).",
        audit.device, audit.reached_pages, audit.guest_pages
    )?;
    if !audit.bus_master {
        writeln!(out, "Bus Master Enable is off: right now it reaches none.")?;
    }
    writeln!(
        out,
        "{} mappings, {all} pages: {} to read and write, {} to read only, {} to no RAM.",
        audit.mappings,
        count(|p| p.read && p.write),
        count(|p| p.read && !p.write),
        count(|p| p.target.is_none()),
    )?;
    writeln!(out, "\nWhat the device uses (pages, of which mapped)")?;
    for used in &audit.uses {
        writeln!(
            out,
            "  {:<28} {:>7} {:>7}",
            used.what, used.pages, used.mapped
        )?;
    }
    if audit.uses.is_empty() {
        writeln!(out, "  nothing")?;
    }
    list(
        out,
        "In reach, and no ring, buffer or backing",
        &audit.unowned,
    )?;
    list(out, "Mapped at its own physical address", &audit.identity)?;
    tables(out, &audit.tables)?;
    probe(out, audit)?;
    map(out, audit)
}

fn list(out: &mut String, title: &str, ranges: &[Piece]) -> fmt::Result {
    writeln!(out, "\n{title}: {} pages", pages(ranges))?;
    for range in ranges.iter().take(LISTED) {
        let right = |have, letter| if have { letter } else { '-' };
        let target = range
            .target
            .map_or_else(|| "no RAM".to_owned(), |gpa| format!("{gpa:#x}"));
        writeln!(
            out,
            "  {:#014x} {:>6} pages -> {target} {}{}",
            range.iova,
            range.pages(),
            right(range.read, 'r'),
            right(range.write, 'w')
        )?;
    }
    if ranges.len() > LISTED {
        writeln!(out, "  and {} ranges more", ranges.len() - LISTED)?;
    }
    Ok(())
}

fn tables(out: &mut String, tables: &Tables) -> fmt::Result {
    match tables {
        Tables::NotWalked(why) => writeln!(out, "\nThe guest's tables were not walked: {why}."),
        Tables::PassThrough => writeln!(
            out,
            "\nThe guest's tables pass the device's requests through: it is not isolated."
        ),
        Tables::Walked {
            pages,
            whole,
            cleared,
            untold,
            changed,
        } => {
            writeln!(out, "\nThe guest's own tables map {pages} pages.")?;
            if !whole {
                writeln!(
                    out,
                    "They are more than were read: what is said of them is a part."
                )?;
            }
            list(
                out,
                "Cleared there and not yet invalidated, still in reach",
                cleared,
            )?;
            list(out, "Led elsewhere there, not yet invalidated", changed)?;
            list(out, "There, and not told by QEMU", untold)
        }
    }
}

fn probe(out: &mut String, audit: &Audit) -> fmt::Result {
    let probe = &audit.probe;
    if let Some(why) = &probe.why_not {
        return writeln!(out, "\nNothing was probed: {why}.");
    }
    writeln!(
        out,
        "\nProbe: {} reads in {} of {} ranges that are not mapped, {} refused.",
        probe.tried, probe.tried_ranges, probe.ranges, probe.refused
    )?;
    for at in probe.reached.iter().take(LISTED) {
        writeln!(out, "  {at:#x} was read, although nothing is mapped there")?;
    }
    Ok(())
}

fn map(out: &mut String, audit: &Audit) -> fmt::Result {
    let (shades, each) = shades(audit, COLUMNS * LINES);
    writeln!(
        out,
        "\nGuest memory, {} KiB a character: . out of reach, r and w the device's, to read or \
         write,\n! none of its business, # the same at its physical address",
        each * PAGE_SIZE / 1024
    )?;
    for (number, line) in shades.chunks(COLUMNS as usize).enumerate() {
        let characters: String = line
            .iter()
            .map(|shade| match shade {
                Shade::OutOfReach => '.',
                Shade::Read => 'r',
                Shade::Write => 'w',
                Shade::Unowned => '!',
                Shade::Identity => '#',
            })
            .collect();
        let at = number as u64 * COLUMNS * each * PAGE_SIZE;
        writeln!(out, "  {at:>#12x} {characters}")?;
    }
    Ok(())
}
