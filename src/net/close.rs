//! Why a connection is closed: told to the other side as a code.

use std::fmt;

use quinn::VarInt;

/// The application's reason for a close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    /// The work is done, or the process ends.
    Done,
    /// A frame was not understood, or its length is over the limit.
    Malformed,
    /// The certificate's role does not go with the protocol.
    WrongRole,
    WrongCluster,
    /// The claim in the hello differs from the certificate, or the lower id did not dial.
    WrongNode,
    WrongVersion,
    /// The settings that must agree across the cluster differ.
    WrongFingerprint,
    /// Not a member, as far as this node knows.
    Stranger,
    /// A newer connection of the same node took its place.
    Replaced,
    /// The first frame did not come in time.
    TooSlow,
    TooMany,
    /// What was sent was not read.
    NotReading,
    /// The certificate is not good any more.
    Revoked,
    /// It was met before under another incarnation: its directory was made anew.
    WrongIncarnation,
    /// The other one speaks with another life of this node: this one is not the member that it means.
    AnotherLife,
    /// It was met before in a later start: its directory was put back from an older copy.
    OlderBoot,
    /// It had acknowledged entries, and does not hold them any more.
    LostAcknowledged,
    /// A code of a version that this one does not know.
    Unknown,
}

const WRONG_FINGERPRINT: &str = "settings that must agree across the cluster differ: make the three times, the [[member]] \
                                 list and `segment_bytes` the same in both nodes' configurations";

const WRONG_INCARNATION: &str = "its directory was made anew under the id of a node that has voted: it would vote twice. Put \
                                 the old directory back; if it is lost, the node comes back only as a new member: `trilith \
                                 cluster remove`, then `trilith init --join`";
const OLDER_BOOT: &str =
    "its directory is an older copy of the one that it had: what it has promised since is not in it";
const LOST_ACKNOWLEDGED: &str = "it had acknowledged entries that it does not hold any more";

const STRANGER: &str = "it counts this node among the members no more, or not yet. One that was removed comes back only as \
                        a new member: `trilith init --join` in an empty directory, then `trilith cluster add`";
const ANOTHER_LIFE: &str = "the member that is meant has another incarnation: its directory is not the one there";

const CODES: [(CloseReason, u32, &str); 17] = [
    (CloseReason::Done, 0, "done"),
    (CloseReason::Malformed, 1, "it received what it could not understand"),
    (CloseReason::WrongRole, 2, "the certificate's role does not go with this protocol"),
    (CloseReason::WrongCluster, 3, "it belongs to another cluster"),
    (CloseReason::WrongNode, 4, "the node's claim and its certificate differ, or the wrong side dialled"),
    (CloseReason::WrongVersion, 5, "it speaks another version of the protocol"),
    (CloseReason::WrongFingerprint, 6, WRONG_FINGERPRINT),
    (CloseReason::Stranger, 7, STRANGER),
    (CloseReason::Replaced, 8, "a newer connection took its place"),
    (CloseReason::TooSlow, 9, "the first message did not come in time"),
    (CloseReason::TooMany, 10, "it has too many connections or streams"),
    (CloseReason::NotReading, 11, "what it sent was not read"),
    (CloseReason::Revoked, 12, "the certificate was revoked or has expired"),
    (CloseReason::WrongIncarnation, 13, WRONG_INCARNATION),
    (CloseReason::OlderBoot, 14, OLDER_BOOT),
    (CloseReason::AnotherLife, 15, ANOTHER_LIFE),
    (CloseReason::LostAcknowledged, 16, LOST_ACKNOWLEDGED),
];

impl CloseReason {
    pub fn code(self) -> VarInt {
        let row = CODES.iter().find(|row| row.0 == self).expect("only reasons in the table are sent");
        VarInt::from_u32(row.1)
    }

    /// Whether this life of the one that is told so must not speak any more: it has lost what it had promised.
    pub fn takes_voice(self) -> bool {
        matches!(self, CloseReason::OlderBoot | CloseReason::LostAcknowledged)
    }

    /// Whether it says something against the node that is told so, and not only against this connection.
    pub(super) fn is_against_node(self) -> bool {
        matches!(
            self,
            CloseReason::WrongCluster
                | CloseReason::WrongVersion
                | CloseReason::WrongFingerprint
                | CloseReason::Stranger
                | CloseReason::WrongIncarnation
        ) || self.takes_voice()
    }

    pub fn from_code(code: VarInt) -> CloseReason {
        let row = CODES.iter().find(|row| u64::from(row.1) == code.into_inner());
        row.map_or(CloseReason::Unknown, |row| row.0)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = CODES.iter().find(|row| row.0 == *self);
        formatter.write_str(row.map_or("a reason that this version does not know", |row| row.2))
    }
}
