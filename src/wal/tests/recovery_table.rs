//! The table by which faults are judged, against a rule of its own.

use crate::wal::recovery::{ALL_EVIDENCE, ALL_FAULTS, ALL_SITES, Evidence, Fault, Site, Verdict, judge};

/// The rule in words of its own: what was there must be there; what was never whole was never acknowledged; what shows
/// neither is not to be guessed.
fn expected(fault: Fault, site: Site, evidence: Evidence) -> Verdict {
    if fault == Fault::Intact {
        return Verdict::Accept;
    }
    if site == Site::Within || evidence == Evidence::Covered {
        return Verdict::Corrupt;
    }
    let shows_unwritten = matches!(fault, Fault::Nothing | Fault::HeadUnwritten | Fault::BodyUnwritten);
    match (shows_unwritten, site, fault) {
        (false, ..) => Verdict::Unclear,
        (true, Site::Open, _) => Verdict::NotJoined,
        (true, _, Fault::Nothing) => Verdict::End,
        (true, ..) => Verdict::Torn,
    }
}

/// `judge` panics where there is not exactly one row.
#[test]
fn each_input_has_one_row_and_the_right_one() {
    let mut inputs = 0;
    for fault in ALL_FAULTS {
        for site in ALL_SITES {
            for evidence in ALL_EVIDENCE {
                assert_eq!(
                    judge(fault, site, evidence),
                    expected(fault, site, evidence),
                    "{fault:?} {site:?} {evidence:?}"
                );
                inputs += 1;
            }
        }
    }
    assert_eq!(inputs, 42);
}
