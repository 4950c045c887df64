//! A fuzzer's bytes as choices, so that what it changes in its input changes one of them.

/// Gives one choice after the other. When the bytes have come to their end every choice is the first one.
#[derive(Debug)]
pub(super) struct Choices<'b> {
    rest: &'b [u8],
}

impl<'b> Choices<'b> {
    pub fn new(bytes: &'b [u8]) -> Choices<'b> {
        Choices { rest: bytes }
    }

    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        byte
    }

    /// A number below `limit`: of one byte if that can give them all, else of two.
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!((1..=1 << 16).contains(&limit), "a choice has 1 to 65536 ways");
        let low = u64::from(self.byte());
        let high = if limit > 1 << 8 { u64::from(self.byte()) } else { 0 };
        (high << 8 | low) % limit
    }
}
