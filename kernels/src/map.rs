//! Images inside a network: blocks of sixteen channels, pixel after pixel.

use crate::operand::{bf16, pair};
use crate::precision::Precision;
use rayon::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Sixteen channels of one pixel: one register of AVX-512, one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Lanes(pub(crate) [f32; 16]);

/// Memory of maps that are no longer needed, for the next ones.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    /// The longest unused first.
    free: Vec<Vec<Lanes>>,
    /// Lanes of the maps that are alive.
    live: usize,
    /// The most that were ever alive together.
    most: usize,
}

impl Pool {
    /// `length` lanes with arbitrary contents: the smallest free piece that is large enough, or a new one.
    fn take(&self, length: usize) -> Vec<Lanes> {
        let mut pieces = self.lock();
        let fits = |piece: &Vec<Lanes>| piece.capacity() >= length && piece.capacity() <= 2 * length;
        let candidates = pieces.free.iter().enumerate().filter(|(_, piece)| fits(piece));
        let best = candidates.min_by_key(|(_, piece)| piece.capacity()).map(|(index, _)| index);
        let mut piece = best.map(|index| pieces.free.remove(index)).unwrap_or_else(|| Vec::with_capacity(length));
        pieces.live += piece.capacity();
        pieces.most = pieces.most.max(pieces.live);
        drop(pieces);
        piece.resize(length, Lanes([0.0; 16]));
        piece
    }

    /// Keeps a piece; images of ever different sizes would leave ever more behind, so the oldest go once there is twice
    /// of what was ever in use.
    fn give(&self, piece: Vec<Lanes>) {
        let mut pieces = self.lock();
        pieces.live -= piece.capacity();
        pieces.free.push(piece);
        let mut all = pieces.live + pieces.free.iter().map(Vec::capacity).sum::<usize>();
        while all > 2 * pieces.most {
            all -= pieces.free.remove(0).capacity();
        }
    }

    /// Returns all free memory to the system.
    pub(crate) fn clear(&self) {
        let mut pieces = self.lock();
        pieces.free.clear();
        pieces.most = pieces.live;
    }

    /// A panic while the lock is held leaves nothing half done that matters: pieces have no meaning.
    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Working memory of a task, which goes back to the pool.
#[derive(Debug)]
pub(crate) struct Scratch<'a> {
    lanes: Vec<Lanes>,
    pool: &'a Pool,
}

impl<'a> Scratch<'a> {
    /// `length` lanes with arbitrary contents.
    pub(crate) fn new(pool: &'a Pool, length: usize) -> Self {
        Self { lanes: pool.take(length), pool }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.lanes.as_mut_ptr().cast()
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.lanes));
    }
}

/// `[batch][block][y][x][16]` numbers of the network's precision; those after the last channel are zeros.
#[derive(Debug)]
pub(crate) struct Map {
    data: Vec<Lanes>,
    pool: Arc<Pool>,
    precision: Precision,
    pub(crate) batch: usize,
    pub(crate) blocks: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Drop for Map {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.data));
    }
}

impl Map {
    /// A map with arbitrary contents.
    pub(crate) fn new(
        pool: &Arc<Pool>,
        precision: Precision,
        batch: usize,
        blocks: usize,
        (height, width): (usize, usize),
    ) -> Self {
        let pixels = batch * blocks * height * width;
        let data = pool.take(match precision {
            Precision::F32 => pixels,
            Precision::Bf16 => pixels.div_ceil(2),
        });
        Self { data, pool: Arc::clone(pool), precision, batch, blocks, height, width }
    }

    /// A map with arbitrary contents, of the same pool.
    pub(crate) fn beside(&self, precision: Precision, batch: usize, blocks: usize, size: (usize, usize)) -> Self {
        Self::new(&self.pool, precision, batch, blocks, size)
    }

    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The same numbers in single precision; `None` if that is what they are in.
    pub(crate) fn widened(&self) -> Option<Self> {
        if self.precision == Precision::F32 {
            return None;
        }
        let mut wide = self.beside(Precision::F32, self.batch, self.blocks, (self.height, self.width));
        wide.data.par_chunks_mut(2).with_min_len(1024).zip(&self.data).for_each(|(wide, pairs)| {
            for (wide, pairs) in wide.iter_mut().zip(pairs.0.chunks(8)) {
                for (both, pair) in wide.0.chunks_mut(2).zip(pairs) {
                    both[0] = f32::from_bits(pair.to_bits() << 16);
                    both[1] = f32::from_bits(pair.to_bits() & 0xffff_0000);
                }
            }
        });
        Some(wide)
    }

    /// A map in single precision with its numbers rounded to `precision`.
    pub(crate) fn rounded(self, precision: Precision) -> Self {
        debug_assert_eq!(self.precision, Precision::F32);
        if precision == Precision::F32 {
            return self;
        }
        let mut narrow = self.beside(precision, self.batch, self.blocks, (self.height, self.width));
        narrow.data.par_iter_mut().with_min_len(1024).zip(self.data.par_chunks(2)).for_each(|(pairs, wide)| {
            for (pairs, wide) in pairs.0.chunks_mut(8).zip(wide) {
                for (to, both) in pairs.iter_mut().zip(wide.0.chunks(2)) {
                    *to = pair(both[0], both[1]);
                }
            }
        });
        narrow
    }

    /// From planes `[batch, channels, height, width]`, times `factor`.
    pub(crate) fn from_planes(
        pool: &Arc<Pool>,
        precision: Precision,
        planes: &[f32],
        shape: [usize; 4],
        factor: f32,
    ) -> Self {
        let [batch, channels, height, width] = shape;
        let mut map = Self::new(pool, precision, batch, channels.div_ceil(16), (height, width));
        map.data.fill(Lanes([0.0; 16]));
        let area = height * width;
        for b in 0..batch {
            for channel in 0..channels {
                let plane = &planes[(b * channels + channel) * area..][..area];
                let first = map.place(b, channel, 0);
                for (pixel, value) in plane.iter().enumerate() {
                    map.set(first + pixel * 16, value * factor);
                }
            }
        }
        map
    }

    /// To planes `[batch, channels, height, width]`, times `factor`.
    pub(crate) fn to_planes(&self, channels: usize, factor: f32) -> Vec<f32> {
        let area = self.height * self.width;
        let mut planes = vec![0.0; self.batch * channels * area];
        for (index, plane) in planes.chunks_exact_mut(area.max(1)).enumerate() {
            let first = self.place(index / channels, index % channels, 0);
            for (pixel, value) in plane.iter_mut().enumerate() {
                *value = self.get(first + pixel * 16) * factor;
            }
        }
        planes
    }

    /// The numbers of one channel of one image.
    pub(crate) fn channel(&self, b: usize, channel: usize) -> impl Iterator<Item = f32> + '_ {
        let first = self.place(b, channel, 0);
        (0..self.height * self.width).map(move |pixel| self.get(first + pixel * 16))
    }

    /// All lanes of one image of a map in single precision.
    pub(crate) fn lanes(&self, b: usize) -> &[Lanes] {
        debug_assert_eq!(self.precision, Precision::F32);
        let image = self.blocks * self.height * self.width;
        &self.data[b * image..][..image]
    }

    /// The index of a number.
    fn place(&self, b: usize, channel: usize, pixel: usize) -> usize {
        ((b * self.blocks + channel / 16) * self.height * self.width + pixel) * 16 + channel % 16
    }

    fn get(&self, index: usize) -> f32 {
        match self.precision {
            Precision::F32 => self.data[index / 16].0[index % 16],
            Precision::Bf16 => {
                let bits = self.data[index / 32].0[index % 32 / 2].to_bits();
                f32::from_bits(if index.is_multiple_of(2) { bits << 16 } else { bits & 0xffff_0000 })
            }
        }
    }

    fn set(&mut self, index: usize, value: f32) {
        match self.precision {
            Precision::F32 => self.data[index / 16].0[index % 16] = value,
            Precision::Bf16 => {
                let both = &mut self.data[index / 32].0[index % 32 / 2];
                let (bits, value) = (both.to_bits(), u32::from(bf16(value)));
                *both = f32::from_bits(match index % 2 {
                    0 => bits & 0xffff_0000 | value,
                    _ => bits & 0xffff | value << 16,
                });
            }
        }
    }

    /// Where block `block` of all images lies, for reading.
    pub(crate) fn read(&self, block: usize) -> Plane {
        self.plane(self.data.as_ptr().cast_mut(), block)
    }

    /// Where block `block` of all images lies, for writing.
    pub(crate) fn write(&mut self, block: usize) -> Plane {
        // The vector's own method: it makes no reference to the elements, which would invalidate the planes of other
        // blocks.
        let data = self.data.as_mut_ptr();
        self.plane(data, block)
    }

    fn plane(&self, data: *mut Lanes, block: usize) -> Plane {
        assert!(block < self.blocks, "block {block} of {}", self.blocks);
        let pixel = match self.precision {
            Precision::F32 => 16,
            Precision::Bf16 => 8,
        };
        let area = self.height * self.width * pixel;
        Plane {
            data: data.cast::<f32>().wrapping_add(block * area),
            image: self.blocks * area,
            row: self.width * pixel,
        }
    }
}

/// The address of one block of channels of every image of a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    data: *mut f32,
    image: usize,
    row: usize,
}

// SAFETY: an address alone; whoever dereferences it answers for the aliasing (bands write disjoint rows).
unsafe impl Send for Plane {}
// SAFETY: as above.
unsafe impl Sync for Plane {}

impl Plane {
    /// First float of row `y` of image `b`.
    ///
    /// # Safety
    /// `b` and `y` lie inside the map, which is still alive.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, b: usize, y: usize) -> *mut f32 {
        // SAFETY: inside the map's allocation by the caller's word.
        unsafe { self.data.add(b * self.image + y * self.row) }
    }
}

/// How the channels of concatenated values lie in blocks: every value begins a block of its own.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Channels of each value.
    pub(crate) parts: Vec<usize>,
}

impl Layout {
    pub(crate) fn channels(&self) -> usize {
        self.parts.iter().sum()
    }

    pub(crate) fn blocks(&self) -> usize {
        self.parts.iter().map(|c| c.div_ceil(16)).sum()
    }

    /// For every lane of every block its channel, `None` for the padding.
    pub(crate) fn lanes(&self) -> Vec<Option<usize>> {
        let mut lanes = Vec::with_capacity(self.blocks() * 16);
        let mut first = 0;
        for &part in &self.parts {
            lanes.extend((first..first + part).map(Some));
            lanes.resize(lanes.len().next_multiple_of(16), None);
            first += part;
        }
        lanes
    }

    /// Per-channel numbers spread over the lanes, zero in the padding.
    pub(crate) fn spread(&self, of: impl Fn(usize) -> f32) -> Vec<f32> {
        self.lanes().into_iter().map(|channel| channel.map_or(0.0, &of)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_used_again() {
        let pool = Arc::default();
        let first = Map::new(&pool, Precision::F32, 1, 2, (3, 4));
        let address = first.read(0).data;
        drop(first);
        assert_eq!(Map::new(&pool, Precision::F32, 1, 1, (5, 4)).read(0).data, address, "20 lanes fit into 24");
    }

    #[test]
    fn free_memory_stays_within_twice_of_what_was_in_use() {
        let pool = Arc::default();
        for side in (1..60).chain((1..60).rev()) {
            // On the way up no earlier piece is large enough.
            let map = |batch| Map::new(&pool, Precision::F32, batch, 1, (side, side));
            drop((map(side), map(1)));
            let pieces = pool.lock();
            assert_eq!(pieces.live, 0);
            let free: usize = pieces.free.iter().map(Vec::capacity).sum();
            assert!(free <= 2 * pieces.most, "{free} lanes after at most {}", pieces.most);
        }
        pool.clear();
        assert!(pool.lock().free.is_empty());
    }

    #[test]
    fn planes_survive_the_way_through_blocks() {
        // Integers up to 256 are `bfloat16`.
        let planes: Vec<f32> = (0..2 * 19 * 6).map(|i| i as f32).collect();
        for precision in [Precision::F32, Precision::Bf16] {
            let map = Map::from_planes(&Arc::default(), precision, &planes, [2, 19, 2, 3], 1.0);
            assert_eq!(map.blocks, 2);
            assert_eq!(map.to_planes(19, 1.0), planes);
            assert!(map.channel(1, 3 + 16).all(|x| x == 0.0), "padding holds zeros");
        }
    }

    #[test]
    fn maps_survive_the_way_through_single_precision() {
        // An odd number of pixels, so that half of the last lanes is of no pixel.
        let planes: Vec<f32> = (0..3 * 17 * 15).map(|i| i as f32).collect();
        let narrow = |precision| Map::from_planes(&Arc::default(), precision, &planes, [3, 17, 3, 5], 1.0);
        assert!(narrow(Precision::F32).widened().is_none());
        let wide = narrow(Precision::Bf16).widened().unwrap();
        assert_eq!(
            (wide.precision(), wide.to_planes(17, 1.0)),
            (Precision::F32, narrow(Precision::Bf16).to_planes(17, 1.0))
        );
        let again = wide.rounded(Precision::Bf16);
        assert_eq!(again.to_planes(17, 1.0), narrow(Precision::Bf16).to_planes(17, 1.0));
        let once = narrow(Precision::F32).rounded(Precision::Bf16);
        assert_eq!(once.to_planes(17, 1.0), again.to_planes(17, 1.0), "rounded to the nearest, ties to the even one");
    }

    #[test]
    fn every_part_begins_a_block() {
        let layout = Layout { parts: vec![3, 17] };
        assert_eq!((layout.channels(), layout.blocks()), (20, 3));
        let lanes = layout.lanes();
        assert_eq!(lanes[2..4], [Some(2), None]);
        assert_eq!(lanes[16], Some(3));
        assert_eq!(lanes[31..34], [Some(18), Some(19), None]);
    }
}
