//! Random numbers that a seed brings back: splitmix64.

/// A die.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same numbers for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The seed of a part of the whole that has a name, so that the part can be repeated alone.
    #[must_use]
    pub fn part(seed: u64, name: &str) -> u64 {
        name.bytes().fold(Dice(seed), |dice, byte| Dice(Dice(dice.0 ^ u64::from(byte)).draw())).0
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw().checked_rem(end).unwrap_or(0)
    }

    /// A number below `sides`; 0 when there is none.
    pub fn roll(&mut self, sides: usize) -> usize {
        let end = u64::try_from(sides).unwrap_or(u64::MAX);
        usize::try_from(self.below(end)).unwrap_or_default()
    }

    /// One of them; `None` of none.
    pub fn one_of<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.roll(of.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_brings_the_same_numbers_back() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            (0..4).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn parts_have_seeds_of_their_own() {
        assert_eq!(Dice::part(1, "agent-kill"), Dice::part(1, "agent-kill"));
        assert_ne!(Dice::part(1, "agent-kill"), Dice::part(1, "agent-stop"));
        assert_ne!(Dice::part(1, "agent-kill"), Dice::part(2, "agent-kill"));
    }

    #[test]
    fn every_face_comes_up() {
        let mut dice = Dice::new(3);
        let faces: std::collections::BTreeSet<_> = (0..200).filter_map(|_| dice.one_of(&[1, 2, 3])).collect();
        assert_eq!(faces.len(), 3);
        assert_eq!(dice.one_of::<i32>(&[]), None);
    }
}
