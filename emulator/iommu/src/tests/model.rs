//! The unit against a model: tables and cache as two maps.

use super::*;
use crate::testing::{domain, global, pages};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Two devices, each in its domain, each with this many pages.
const PAGES: u64 = 24;
const DEVICES: [RequesterId; 2] = [DEVICE, OTHER];

#[derive(Clone, Debug)]
enum Step {
    Map {
        who: usize,
        page: u64,
        target: u64,
        rights: u64,
    },
    Unmap {
        who: usize,
        page: u64,
    },
    DropPages {
        who: usize,
        page: u64,
        mask: u8,
    },
    DropDomain {
        who: usize,
    },
    DropAll,
    Access {
        who: usize,
        page: u64,
        write: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..2usize;
    let page = 0..PAGES;
    prop_oneof![
        4 => (who.clone(), page.clone(), 0..8u64, 1..=3u64)
            .prop_map(|(who, page, target, rights)| Step::Map { who, page, target, rights }),
        2 => (who.clone(), page.clone()).prop_map(|(who, page)| Step::Unmap { who, page }),
        2 => (who.clone(), page.clone(), 0..4u8)
            .prop_map(|(who, page, mask)| Step::DropPages { who, page, mask }),
        1 => who.clone().prop_map(|who| Step::DropDomain { who }),
        1 => Just(Step::DropAll),
        8 => (who, page, any::<bool>())
            .prop_map(|(who, page, write)| Step::Access { who, page, write }),
    ]
}

type Map = BTreeMap<(usize, u64), (u64, u64)>;

/// What an access must give: the cache if it allows it, else the tables.
fn expected(tables: &Map, cache: &mut Map, key: (usize, u64), write: bool) -> Option<u64> {
    let needs = if write { 2 } else { 1 };
    let allowed =
        |found: Option<&(u64, u64)>| found.filter(|(_, rights)| rights & needs != 0).copied();
    if let Some((target, _)) = allowed(cache.get(&key)) {
        return Some(target);
    }
    let walked = allowed(tables.get(&key))?;
    cache.insert(key, walked);
    Some(walked.0)
}

fn at(page: u64) -> Iova {
    Iova(IOVA.0 - 0x7000 + page * 4096)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_unit_agrees_with_a_model_of_tables_and_cache(steps in prop::collection::vec(step(), 1..80)) {
        let os = Os::started(RAM);
        let tops = [os.attach(DEVICE, 1, 4), os.attach(OTHER, 2, 4)];
        for target in 0..8 {
            os.memory.fill(Gpa(PAGE_A.0 + target * 4096), 4096, target as u8).unwrap();
        }
        let (mut tables, mut cache) = (Map::new(), Map::new());
        for step in steps {
            match step {
                Step::Map { who, page, target, rights } => {
                    os.map(tops[who], at(page), Gpa(PAGE_A.0 + target * 4096), rights);
                    tables.insert((who, page), (target, rights));
                }
                Step::Unmap { who, page } => {
                    os.poke(os.entry(tops[who], 4, 1, at(page)), 0);
                    tables.remove(&(who, page));
                }
                Step::DropPages { who, page, mask } => {
                    prop_assert!(os.run(pages(who as u16 + 1, at(page), mask, true)));
                    cache.retain(|&(w, p), _| w != who || p >> mask != page >> mask);
                }
                Step::DropDomain { who } => {
                    prop_assert!(os.run(domain(who as u16 + 1, false)));
                    cache.retain(|&(w, _), _| w != who);
                }
                Step::DropAll => {
                    prop_assert!(os.run(global(true)));
                    cache.clear();
                }
                Step::Access { who, page, write } => {
                    let dma = os.dma(DEVICES[who]);
                    let wanted = expected(&tables, &mut cache, (who, page), write);
                    if write {
                        // The same byte, so that targets keep telling
                        // themselves apart.
                        let bytes = [wanted.unwrap_or(0xff) as u8];
                        prop_assert_eq!(dma.write(at(page), &bytes).is_ok(), wanted.is_some());
                    } else {
                        let got = byte(&dma, at(page)).ok();
                        prop_assert_eq!(got, wanted.map(|target| target as u8));
                    }
                }
            }
        }
        for target in 0..8 {
            let mut byte = [0];
            os.memory.read(Gpa(PAGE_A.0 + target * 4096), &mut byte).unwrap();
            prop_assert_eq!(byte[0], target as u8, "no write went astray");
        }
    }
}
