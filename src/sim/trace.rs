//! A hash over everything that happens: the same seed must give the same one.

/// Grows with each event. Equal on every machine and in every build: it is made of the events' own numbers and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
}

/// What an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Label {
    Input,
    Output,
    Disk,
    Message,
    Request,
    Response,
    Fault,
}

impl Trace {
    /// Takes in an event.
    pub(super) fn note(&mut self, label: Label, numbers: &[u64], bytes: &[u8]) {
        self.events += 1;
        self.mix(label as u64);
        self.mix(numbers.len() as u64);
        numbers.iter().for_each(|number| self.mix(*number));
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn events(&self) -> u64 {
        self.events
    }

    fn mix(&mut self, word: u64) {
        let mixed = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash = mixed ^ (mixed >> 32);
    }
}
