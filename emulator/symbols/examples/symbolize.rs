//! Prints what is known of addresses of an image: `symbolize PDB [RVA...]`.
//! Without addresses it reads them, hexadecimal, from standard input.
use std::io::BufRead;
use std::path::Path;

use symbols::SymbolTable;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let pdb = arguments.next().ok_or("usage: symbolize PDB [RVA...]")?;
    let table = SymbolTable::from_pdb_file(Path::new(&pdb))?;
    let mut addresses: Vec<String> = arguments.collect();
    if addresses.is_empty() {
        addresses = std::io::stdin().lock().lines().collect::<Result<_, _>>()?;
    }
    for address in addresses {
        println!("{address}:");
        let digits = address.trim().trim_start_matches("0x");
        for frame in table.lookup(u32::from_str_radix(digits, 16)?) {
            println!("  {frame}");
        }
    }
    Ok(())
}
