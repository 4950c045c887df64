//! The table by which faults are judged, against a rule of its own.

use std::collections::BTreeSet;

use crate::wal::recovery::{
    ALL_EVIDENCE, ALL_FAULTS, ALL_SITES, Acknowledged, Evidence, Fault, Judgement, Site, Verdict, judge,
};

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

/// What is durable for certain may have been acknowledged the instant it was; what was never whole cannot have been.
fn expected_acknowledged(fault: Fault, site: Site, evidence: Evidence) -> Acknowledged {
    let was_durable = evidence == Evidence::Covered || site == Site::Within;
    let was_never_whole = [Fault::Nothing, Fault::HeadUnwritten, Fault::BodyUnwritten].contains(&fault);
    match (was_durable, was_never_whole) {
        (true, _) => Acknowledged::Yes,
        (false, true) => Acknowledged::No,
        (false, false) => Acknowledged::Unknown,
    }
}

fn inputs() -> impl Iterator<Item = (Fault, Site, Evidence)> {
    let sites = |fault| ALL_SITES.into_iter().map(move |site| (fault, site));
    ALL_FAULTS
        .into_iter()
        .flat_map(sites)
        .flat_map(|(fault, site)| ALL_EVIDENCE.into_iter().map(move |evidence| (fault, site, evidence)))
}

/// `judge` panics where there is not exactly one row.
#[test]
fn each_input_has_one_row_and_the_right_one() {
    for (fault, site, evidence) in inputs() {
        let judgement = Judgement {
            verdict: expected(fault, site, evidence),
            acknowledged: expected_acknowledged(fault, site, evidence),
        };
        assert_eq!(judge(fault, site, evidence), judgement, "{fault:?} {site:?} {evidence:?}");
    }
}

/// The lists hold every value there is: a new one does not compile before it is counted here, and is not walked before
/// it stands in its list.
#[test]
fn all_inputs_are_walked() {
    let faults = |fault| match fault {
        Fault::Intact
        | Fault::Nothing
        | Fault::HeadUnwritten
        | Fault::HeadDamaged
        | Fault::BodyUnwritten
        | Fault::BodyDamaged
        | Fault::Unreadable => 7,
    };
    let sites = |site| match site {
        Site::Within | Site::Tail | Site::Open => 3,
    };
    let evidence = |evidence| match evidence {
        Evidence::Covered | Evidence::Uncovered => 2,
    };
    let all: BTreeSet<_> = inputs().collect();
    assert_eq!(all.len(), faults(Fault::Intact) * sites(Site::Within) * evidence(Evidence::Covered));
}

/// Nothing that may have been acknowledged is ever cut, and nothing that is cut is said to have been.
#[test]
fn what_is_cut_was_not_acknowledged() {
    for (fault, site, evidence) in inputs() {
        let Judgement { verdict, acknowledged } = judge(fault, site, evidence);
        let is_cut = matches!(verdict, Verdict::End | Verdict::Torn | Verdict::NotJoined);
        assert_eq!(is_cut, acknowledged == Acknowledged::No, "{fault:?} {site:?} {evidence:?}");
    }
}
