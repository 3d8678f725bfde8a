//! A small seeded generator (SplitMix64), so that every campaign can be repeated from its seed alone.

/// SplitMix64 of Steele, Lea and Flood (2014). Not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// An independent stream for part `n` of the run with that seed.
    pub(crate) fn stream(seed: u64, n: u64) -> Self {
        let mut rng = Self(seed ^ n.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0. The bias of the modulo is far below what a campaign can see.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound > 0);
        self.next() % bound
    }

    /// From `from` up to and including `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True in `share` of `of` cases.
    pub(crate) fn chance(&mut self, share: u64, of: u64) -> bool {
        self.below(of) < share
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let at = self.below(of.len() as u64);
        &of[usize::try_from(at).unwrap_or(0)]
    }

    pub(crate) fn bytes10(&mut self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes()[..2]);
        bytes
    }

    /// Log-uniform between `from` and `to`: many small values, few large ones.
    pub(crate) fn log_between(&mut self, from: f64, to: f64) -> f64 {
        let unit = self.below(1 << 53) as f64 / (1u64 << 53) as f64;
        (from.ln() + unit * (to.ln() - from.ln())).exp()
    }
}
