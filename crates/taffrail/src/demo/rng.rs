//! Seeded numbers: the same seed gives the same fleet on every machine (SplitMix64, Steele, Lea and Flood 2014).

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// A stream for each combination of parts.
    pub(crate) fn new(parts: &[u64]) -> Self {
        let mut rng = Self(0x5446_524c);
        for part in parts {
            rng.0 = rng.next() ^ part;
        }
        rng.next();
        rng
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// From 0 up to, and without, 1.
    #[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of this probability happens.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// One of them. The slice must not be empty.
    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.index(from.len())]
    }

    /// An index below `len`, which must not be 0.
    #[allow(clippy::cast_possible_truncation, reason = "the remainder is below a length")]
    pub(crate) fn index(&mut self, len: usize) -> usize {
        (self.next() % len as u64) as usize
    }

    /// A duration with a long tail, in milliseconds: log-normal about `median` (Box and Muller 1958).
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a day")]
    pub(crate) fn around_ms(&mut self, median: f64, spread: f64) -> i64 {
        let (a, b) = (1.0 - self.share(), self.share());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        (median * (normal * spread).exp()).clamp(1.0, 86_400_000.0) as i64
    }

    /// So many hexadecimal digits.
    pub(crate) fn hex(&mut self, digits: usize) -> String {
        let mut text = String::new();
        while text.len() < digits {
            text.push_str(&format!("{:016x}", self.next()));
        }
        text.truncate(digits);
        text
    }

    /// In the form of a UUID of version 4.
    pub(crate) fn uuid(&mut self) -> String {
        let high = u128::from(self.next()) << 64;
        uuid::Builder::from_random_bytes((high | u128::from(self.next())).to_be_bytes())
            .into_uuid()
            .to_string()
    }
}
