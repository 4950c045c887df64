//! Each error says what is wrong, and what to do about it, in words that docs/operations.md has, too.

use super::*;
use crate::disk::Error as DiskError;
use crate::types::{ClusterId, Incarnation};
use crate::wal::{Error as LogError, Finding, Identity, Severity};

const OPERATIONS: &str = include_str!("../../../../docs/operations.md");

/// One value of each variant, by the name that the documentation uses. It does not compile if one is left out.
macro_rules! variants {
    ($function:ident: $type:ident as $shown:literal { $($variant:ident = $made:expr,)* }) => {
        fn $function() -> Vec<(&'static str, $type)> {
            let _ = |one: &$type| match one { $($type::$variant { .. } => {})* };
            vec![$((concat!($shown, "::", stringify!($variant)), $made)),*]
        }
    };
}

variants!(errors: Error as "Error" {
    Options = Error::Options { what: "segment_bytes is 1".to_owned() },
    Missing = Error::Missing { directory: directory() },
    NotEmpty = Error::NotEmpty { directory: directory(), name: "x".to_owned() },
    InUse = Error::InUse { directory: directory() },
    OfNode = Error::OfNode { directory: directory(), node: crate::types::NodeId(1) },
    Damaged = Error::Damaged { directory: directory(), finding: Box::new(finding()) },
    LogLost = Error::LogLost { directory: directory(), evidence: Place::START },
    SuperblockLost = Error::SuperblockLost { directory: directory() },
    Superblock = Error::Superblock(Box::new(crate::superblock::Error::NotFormatted)),
    Io = Error::Io(ProbeError::Refused { cause: "no".to_owned(), remedy: "allow it" }),
    Log = Error::Log(LogError::Missing { directory: directory() }),
    Disk = Error::Disk(disk_error(5)),
    Truncated = Error::Truncated { group: GROUP, from: Index(7) },
    Failed = Error::Failed(unknown()),
});

variants!(log_errors: LogError as "wal::Error" {
    Disk = LogError::Disk(disk_error(5)),
    Damaged = LogError::Damaged(finding()),
    WrongIdentity = LogError::WrongIdentity { segment: SegmentNumber(1), expected: identity(1), found: identity(2) },
    NewerFormat = LogError::NewerFormat { segment: SegmentNumber(1), found: 9, known: 1 },
    Missing = LogError::Missing { directory: directory() },
    Exists = LogError::Exists { directory: directory() },
    Stale = LogError::Stale {
        group: GROUP,
        wanted: Index(7),
        segment: SegmentNumber(1),
        cause: Box::new(LogError::Damaged(finding())),
    },
    Trimmed = LogError::Trimmed { group: GROUP, first: Index(7), wanted: Index(1) },
});

variants!(refusals: Refused as "Refused" {
    Log = Refused::Log(LogRefused::Poisoned),
    Order = Refused::Order { before: LogId::ZERO, next: LogId::ZERO },
    TooManyTerms = Refused::TooManyTerms { max: 64 },
    Payload = Refused::Payload { entry: LogId::ZERO, fault: "its checksum" },
    Busy = Refused::Busy { bytes: 1, max: 1 },
    Closed = Refused::Closed,
});

variants!(log_refusals: LogRefused as "wal::Refused" {
    TooLarge = LogRefused::TooLarge { bytes: 2, max: 1 },
    Gap = LogRefused::Gap { found: Index(9), expected: Index(3), before_first: Index(0) },
    IndexTooLarge = LogRefused::IndexTooLarge { found: Index(9), max: 8 },
    TooManyGroups = LogRefused::TooManyGroups { max: 64 },
    NoSpace = LogRefused::NoSpace,
    Poisoned = LogRefused::Poisoned,
});

variants!(unsaved: Unsaved as "Unsaved" {
    Refused = Unsaved::Refused(Refused::Closed),
    OutcomeUnknown = Unsaved::OutcomeUnknown(unknown()),
});

variants!(ends: Ended as "Ended" {
    Closed = Ended::Closed,
    Failed = Ended::Failed(unknown()),
});

fn directory() -> String {
    "DIR".to_owned()
}

fn identity(incarnation: u64) -> Identity {
    Identity { cluster: ClusterId(1), node: NODE_ALONE, incarnation: Incarnation(incarnation) }
}

fn finding() -> Finding {
    Finding {
        severity: Severity::Corrupt,
        file: "log/1.segment".to_owned(),
        bytes: 0..4096,
        what: "checksum".to_owned(),
        acknowledged: None,
        entries: Vec::new(),
    }
}

fn disk_error(number: i32) -> DiskError {
    DiskError::new(Operation::Write, "log/1.segment", std::io::Error::from_raw_os_error(number))
}

fn unknown() -> OutcomeUnknown {
    OutcomeUnknown(Arc::new(disk_error(5)))
}

/// The row of the documentation: name, meaning, next step.
fn row(name: &str) -> Vec<&'static str> {
    let start = format!("| `{name}` |");
    let line = OPERATIONS.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("{name} is not in docs/operations.md"));
    line.trim_matches('|').split('|').map(str::trim).collect()
}

fn check(name: &str, message: &str, next_step: &str) {
    let [_, meaning, documented] = row(name)[..] else { panic!("{name} has no row of three") };
    assert!(!meaning.is_empty() && !message.is_empty() && !message.contains("next:"), "{name}: {message}");
    assert!(next_step.len() > 8 && next_step != message, "{name}: {next_step}");
    // What a variant hands on from another type has a row there.
    if !documented.starts_with("that of") {
        assert_eq!(documented, next_step, "{name}");
    }
}

#[test]
fn each_error_says_what_to_do_and_the_documentation_says_the_same() {
    errors().iter().for_each(|(name, error)| check(name, &error.to_string(), &error.next_step()));
    log_errors().iter().for_each(|(name, error)| check(name, &error.to_string(), &error.next_step()));
    refusals().iter().for_each(|(name, error)| check(name, &error.to_string(), error.next_step()));
    log_refusals().iter().for_each(|(name, error)| check(name, &error.to_string(), error.next_step()));
    unsaved().iter().for_each(|(name, error)| check(name, &error.to_string(), error.next_step()));
    ends().iter().for_each(|(name, error)| check(name, &error.to_string(), error.next_step()));
    check("OutcomeUnknown", &unknown().to_string(), unknown().next_step());
    let full = OutcomeUnknown(Arc::new(disk_error(28)));
    assert!(full.next_step().starts_with("free space"), "{}", full.next_step());
}

#[test]
fn an_error_told_again_says_the_same() {
    let odd = DiskError::new(Operation::Flush, "f", std::io::Error::other("odd")).at(7);
    for error in [disk_error(28), disk_error(24), odd] {
        let again = error.told_again();
        assert_eq!((again.to_string(), again.kind()), (error.to_string(), error.kind()));
        assert_eq!(again.is_no_space(), error.is_no_space());
    }
}
