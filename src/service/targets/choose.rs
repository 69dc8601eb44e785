//! Which of several targets a connection gets.

use super::options::Strategy;

/// A target that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Where it is found.
    pub(super) index: usize,
    /// What it is told apart by, the same on every node and after every restart.
    pub(super) seed: u64,
    /// Its weight as it is configured.
    pub(super) weight: f64,
    /// How much of that counts now: less than 1 while it starts slowly.
    pub(super) share: f64,
    /// Connections that it has.
    pub(super) open: u32,
    /// How long its answers take, in seconds; `None` before the first one.
    pub(super) latency: Option<f64>,
    /// What it has saved up of turns.
    pub(super) credit: f64,
}

impl Candidate {
    /// Connections for its weight, with one more.
    fn load(&self) -> f64 {
        (f64::from(self.open) + 1.0) / (self.weight * self.share)
    }
}

/// The place of the chosen one among the candidates, whose turns are counted; `None` when there is none.
pub(super) fn choose(strategy: Strategy, candidates: &mut [Candidate], random: u64, key: u64) -> Option<usize> {
    match strategy {
        Strategy::RoundRobin => take_turns(candidates, |candidate| candidate.share),
        Strategy::Weighted => take_turns(candidates, |candidate| candidate.weight * candidate.share),
        Strategy::LeastConnections => least_loaded(candidates),
        Strategy::ResponseTime => sooner_of_two(candidates, random),
        Strategy::Hash => highest_score(candidates, key),
    }
}

/// Smooth weighted round-robin, as in nginx: who has waited the longest for its weight is next, so that the turns of a
/// heavy one are spread among those of the others.
fn take_turns(candidates: &mut [Candidate], weight: impl Fn(&Candidate) -> f64) -> Option<usize> {
    let mut total = 0.0;
    for candidate in candidates.iter_mut() {
        let weight = weight(candidate);
        candidate.credit += weight;
        total += weight;
    }
    let mut best = None;
    for (place, candidate) in candidates.iter().enumerate() {
        if best.is_none_or(|(_, credit)| candidate.credit > credit + CREDIT_ERROR) {
            best = Some((place, candidate.credit));
        }
    }
    let (place, _) = best?;
    candidates[place].credit -= total;
    Some(place)
}

/// Those that are loaded alike take turns.
fn least_loaded(candidates: &mut [Candidate]) -> Option<usize> {
    let least = candidates.iter().map(Candidate::load).min_by(f64::total_cmp)?;
    let mut alike: Vec<_> = (0..candidates.len()).filter(|place| candidates[*place].load() <= least).collect();
    let mut among: Vec<_> = alike.iter().map(|place| candidates[*place]).collect();
    let chosen = take_turns(&mut among, |candidate| candidate.weight * candidate.share)?;
    for (place, candidate) in alike.iter().zip(among) {
        candidates[*place].credit = candidate.credit;
    }
    Some(alike.swap_remove(chosen))
}

/// Power of two choices: the best of all would get everything until its answers are seen to be slow.
fn sooner_of_two(candidates: &[Candidate], random: u64) -> Option<usize> {
    let count = candidates.len();
    if count < 2 {
        return (count == 1).then_some(0);
    }
    let (first, second) = (random as u32 as usize, (random >> 32) as usize);
    let first = first % count;
    let second = (first + 1 + second % (count - 1)) % count;
    let (a, b) = (&candidates[first], &candidates[second]);
    // Nothing is known of one: then it is the load that counts, and of two alike the unknown one is found out about.
    let (of_a, of_b) = match (a.latency, b.latency) {
        (Some(of_a), Some(of_b)) => (of_a * a.load(), of_b * b.load()),
        (None, Some(_)) => (a.load(), b.load() * UNKNOWN_FIRST),
        (Some(_), None) => (a.load() * UNKNOWN_FIRST, b.load()),
        (None, None) => (a.load(), b.load()),
    };
    Some(if of_b < of_a { second } else { first })
}

/// Rendezvous hashing with weights: when a target goes, only its clients move, and come back with it. Slow start does not
/// count, which would have clients move all the time.
fn highest_score(candidates: &[Candidate], key: u64) -> Option<usize> {
    let score = |candidate: &Candidate| {
        // In (0, 1): 53 bits, and half of the last one.
        let drawn = ((mix(key ^ candidate.seed) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        candidate.weight / -drawn.ln()
    };
    (0..candidates.len()).max_by(|a, b| score(&candidates[*a]).total_cmp(&score(&candidates[*b])))
}

/// A number for a text, the same everywhere and always (FNV-1a).
pub(in crate::service) fn seed(text: &str) -> u64 {
    let step = |state: u64, byte: u8| (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Spreads the bits of a number over all of it (the finisher of SplitMix64).
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Sums of shares are not exact; whoever is first of several alike shall be the first one.
const CREDIT_ERROR: f64 = 1e-9;

/// Just enough to decide between two that are loaded alike.
const UNKNOWN_FIRST: f64 = 1.001;

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let candidate = |(index, weight): (usize, &u32)| Candidate {
            index,
            seed: seed(&format!("tcp://10.0.0.{index}:80")),
            weight: f64::from(*weight),
            share: 1.0,
            open: 0,
            latency: None,
            credit: 0.0,
        };
        weights.iter().enumerate().map(candidate).collect()
    }

    fn turns(strategy: Strategy, candidates: &mut [Candidate], count: usize) -> String {
        (0..count).map(|_| choose(strategy, candidates, 0, 0).unwrap().to_string()).collect()
    }

    #[test]
    fn of_none_none_is_chosen() {
        for strategy in Strategy::ALL {
            assert_eq!(choose(strategy, &mut [], 7, 7), None);
            assert_eq!(choose(strategy, &mut candidates(&[1]), u64::MAX, 7), Some(0));
        }
    }

    #[test]
    fn turns_are_taken_in_order_and_by_weight() {
        assert_eq!(turns(Strategy::RoundRobin, &mut candidates(&[1, 5, 1]), 7), "0120120");
        assert_eq!(turns(Strategy::Weighted, &mut candidates(&[4, 2, 1]), 14), "01020100102010");
        let mut starting = candidates(&[1, 1]);
        starting[0].share = 0.1;
        let seen = turns(Strategy::RoundRobin, &mut starting, 110);
        assert_eq!(seen.matches('0').count(), 10);
    }

    #[test]
    fn the_one_with_the_fewest_connections_for_its_weight_is_chosen() {
        let mut four = candidates(&[1, 1, 2, 1]);
        (four[0].open, four[1].open, four[2].open, four[3].open) = (3, 1, 2, 2);
        assert_eq!(choose(Strategy::LeastConnections, &mut four, 0, 0), Some(2));
        four[2].open = 4;
        assert_eq!(choose(Strategy::LeastConnections, &mut four, 0, 0), Some(1));
        assert_eq!(turns(Strategy::LeastConnections, &mut candidates(&[1, 1, 1]), 6), "012012", "alike: in turns");
    }

    #[test]
    fn of_two_the_one_that_answers_sooner_is_chosen() {
        let mut state = 1;
        let mut counts = |candidates: &mut [Candidate]| {
            let mut counts = vec![0; candidates.len()];
            for _ in 0..3000 {
                state = mix(state + 1);
                counts[choose(Strategy::ResponseTime, candidates, state, 0).unwrap()] += 1;
            }
            counts
        };
        let mut three = candidates(&[1, 1, 1]);
        (three[0].latency, three[1].latency, three[2].latency) = (Some(0.001), Some(0.002), Some(0.5));
        let seen = counts(&mut three);
        assert!(seen[0] > 1800 && seen[1] > 800 && seen[2] == 0, "the slowest of three never wins: {seen:?}");
        three[0].open = 9;
        assert!(counts(&mut three)[1] > 1800, "open connections count");
        three[2].latency = None;
        assert!(counts(&mut three)[2] > 1800, "what is not known is found out");
        let even = counts(&mut candidates(&[1, 1, 1]));
        assert!(even.iter().all(|count| (800..1200).contains(count)), "{even:?}");
    }

    #[test]
    fn a_key_keeps_its_target_and_moves_only_when_that_goes() {
        let mut all = candidates(&[1, 1, 2, 1]);
        let mut counts = [0; 4];
        for key in (0..4000).map(mix) {
            let chosen = choose(Strategy::Hash, &mut all, 0, key).unwrap();
            counts[chosen] += 1;
            let mut without: Vec<_> = all.iter().copied().filter(|candidate| candidate.index != 1).collect();
            let moved = choose(Strategy::Hash, &mut without, 0, key).map(|place| without[place].index).unwrap();
            assert!(chosen == 1 || moved == chosen);
            assert_ne!(moved, 1);
        }
        assert!((700..900).contains(&counts[0]) && (1450..1750).contains(&counts[2]), "{counts:?}");
    }

    #[test]
    fn the_place_of_a_key_does_not_change_between_versions() {
        let mut all = candidates(&[1, 1, 1, 1]);
        let places: String = (1..=12)
            .map(|client| choose(Strategy::Hash, &mut all, 0, seed(&format!("10.1.0.{client}"))).unwrap().to_string())
            .collect();
        assert_eq!(places, "121300301202");
    }
}
