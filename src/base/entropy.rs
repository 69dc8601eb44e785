//! Randomness as an argument: the core is given a source and never reaches for one.

use ring::rand::{SecureRandom, SystemRandom};

/// A source of unpredictable bytes; a simulation gives a seeded one.
pub trait Entropy: Send {
    /// Fills `destination` with random bytes.
    fn fill(&mut self, destination: &mut [u8]);

    /// A random number.
    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

/// The operating system's generator.
#[derive(Clone, Debug)]
pub struct SystemEntropy(SystemRandom);

impl SystemEntropy {
    /// A handle on the operating system's generator.
    #[must_use]
    pub fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Default for SystemEntropy {
    fn default() -> Self {
        Self::new()
    }
}

impl Entropy for SystemEntropy {
    fn fill(&mut self, destination: &mut [u8]) {
        self.0.fill(destination).expect("the operating system's random generator works, or nothing here is safe");
    }
}
