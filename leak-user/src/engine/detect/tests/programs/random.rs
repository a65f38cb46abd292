//! Chance that can be repeated.

/// Numbers that depend on nothing but the seed.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // The first numbers of neighbouring seeds are alike.
        for _ in 0..4 {
            random.chance();
        }
        random
    }

    /// From 0 to below 1.
    pub(super) fn chance(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) as f64 / (1_u64 << 31) as f64
    }

    pub(super) fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.chance()
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        (self.chance() * limit as f64) as usize
    }

    pub(super) fn one_in(&mut self, many: u64) -> bool {
        self.chance() * (many as f64) < 1.0
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}
