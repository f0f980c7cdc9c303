//! A seed for every photo.

use super::relative;
use crate::digest;
use std::path::Path;

/// The seed of a photo: a hash of the seed of the run and of the photo's relative path, from 0 to 2⁵³ − 1.
///
/// It depends on nothing else, so that order, workers and shards do not matter, and `--seed` with the recorded number repeats
/// one photo alone. 53 bits survive programs that read every number of JSON as a double.
pub fn seed(of_run: u64, relative: &Path) -> u64 {
    digest::number(&[b"tweedie batch seed", &of_run.to_le_bytes(), &relative::key(relative)]) >> 11
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    // python3 -c "import hashlib; p = lambda b: len(b).to_bytes(8, 'little') + b; \
    //   h = hashlib.sha256(p(b'tweedie batch seed') + p((7).to_bytes(8, 'little')) + p(b'a/b.jpg')); \
    //   print(int.from_bytes(h.digest()[:8], 'little') >> 11)"
    #[test]
    fn the_seed_is_a_hash_of_seed_and_path() {
        assert_eq!(seed(7, Path::new("a/b.jpg")), 3_871_110_964_940_359);
        assert_eq!(seed(7, Path::new("./a/b.jpg")), 3_871_110_964_940_359);
    }

    #[test]
    fn photos_and_runs_have_seeds_of_their_own() {
        let paths: Vec<String> = (0..1000).map(|k| format!("{k}.jpg")).collect();
        let seeds: HashSet<u64> =
            (0..10).flat_map(|run| paths.iter().map(move |path| seed(run, Path::new(path)))).collect();
        assert_eq!(seeds.len(), 10_000);
        assert!(seeds.iter().all(|&seed| seed < 1 << 53));
    }
}
