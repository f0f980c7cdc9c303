//! Softmax attention over the pixels of an image, without the matrix of its scores.
//!
//! `o_i = Σ_j p_ij v_j` with `p_ij = exp(s_ij − m_i) / l_i` and `s_ij = q_i · k_j / √d`. The keys come in blocks; of each
//! query there are only the largest score so far `m`, the sum of the exponentials `l`, and the sum of the values, which
//! are scaled down when a block brings a larger score (Milakov & Gimelshein 2018, <https://arxiv.org/abs/1805.02867>;
//! Rabe & Staats 2021, <https://arxiv.org/abs/2112.05682>). The data gradient computes the blocks of scores again from m
//! and 1/l (Dao et al. 2022, <https://arxiv.org/abs/2205.14135>), which are kept apart: the digits of `m + ln l` would not
//! do for large scores. With `g` the gradient of `o`:
//!
//! `δ_i = g_i · o_i`, `t_ij = p_ij (g_i · v_j − δ_i)`, `∂q_i = Σ_j t_ij k_j / √d`, `∂k_j = Σ_i t_ij q_i / √d`,
//! `∂v_j = Σ_i p_ij g_i`
//!
//! A task is a block of pixels of one head of one image: of queries for `o` and `∂q`, of keys for `∂k` and `∂v`; the
//! gradient thus takes seven products of matrices where five would do, but nobody adds to what another task writes, so
//! neither the threads nor the batch change a bit. The lanes of a register are sixteen pixels of the task's block, the
//! other side of each product is read where it lies, number by number: then no sum runs across lanes, and the number of
//! channels of a head need not be a multiple of anything.
//!
//! All of it is single precision: in a network of `bfloat16` the values are widened before and rounded after, which is
//! little beside the products. Pairs of `bfloat16` could be multiplied for the scores, whose sums run over neighbouring
//! channels; those of the values run over pixels and would have to be rearranged first.

use crate::correlation::unrolled;
use crate::isa::InstructionSet;
use crate::map::{Lanes, Map, Plane, Pool, Scratch};
use crate::precision::Precision;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512};
use crate::vector::{Portable, Vector, exp};
use rayon::prelude::*;
use std::ops::Range;

/// Pixels whose scores exist at the same time, for the pixels of one register.
const BLOCK: usize = 64;

/// Heads and channels of an attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) isa: InstructionSet,
    pub(crate) heads: usize,
    /// Channels of the queries, and as many of the keys.
    pub(crate) channels: usize,
    /// Channels of the values and of the result.
    pub(crate) value_channels: usize,
}

/// Largest score (block 0) and inverse of the sum of the exponentials (block 1) of every query, in a row of its own for
/// each head of each image.
#[derive(Debug)]
pub(crate) struct Softmax(Map);

impl Attention {
    /// The result for `[query, key, value]`, in their precision.
    pub(crate) fn forward(&self, inputs: [&Map; 3]) -> (Map, Softmax) {
        let wide = inputs.map(Map::widened);
        let [query, key, value] = single(inputs, &wide);
        let mut softmax = self.rows(query, 2);
        let mut result = value.beside(Precision::F32, value.batch, value.blocks, (value.height, value.width));
        let job = Job {
            attention: self,
            pass: Pass::Forward { softmax: [softmax.write(0), softmax.write(1)] },
            pixels: query.height * query.width,
            inputs: [query, key, value].map(planes),
            targets: vec![Target { channels: self.value_channels, planes: written(&mut result) }],
        };
        job.run(query.batch, query.pool());
        (result.rounded(inputs[2].precision()), Softmax(softmax))
    }

    /// The gradients of query, key and value, given the one of `result`.
    pub(crate) fn backward(&self, inputs: [&Map; 3], softmax: &Softmax, result: &Map, gradient: &Map) -> [Map; 3] {
        let wide = inputs.map(Map::widened);
        let [query, key, value] = single(inputs, &wide);
        let others = [result, gradient];
        let wide = others.map(Map::widened);
        let [result, gradient] = single(others, &wide);
        let mut gradients =
            [query, key, value].map(|map| map.beside(Precision::F32, map.batch, map.blocks, (map.height, map.width)));
        let [of_query, of_key, of_value] = &mut gradients;
        let mut delta = self.rows(query, 1);
        let softmax = [softmax.0.read(0), softmax.0.read(1)];
        let mut job = Job {
            attention: self,
            pass: Pass::Queries { softmax, result: planes(result), gradient: planes(gradient), delta: delta.write(0) },
            pixels: query.height * query.width,
            inputs: [query, key, value].map(planes),
            targets: vec![Target { channels: self.channels, planes: written(of_query) }],
        };
        job.run(query.batch, query.pool());
        job.pass = Pass::Keys { softmax, gradient: planes(gradient), delta: delta.read(0) };
        job.targets = vec![
            Target { channels: self.channels, planes: written(of_key) },
            Target { channels: self.value_channels, planes: written(of_value) },
        ];
        job.run(query.batch, query.pool());
        gradients.map(|gradient| gradient.rounded(inputs[0].precision()))
    }

    /// Room for numbers of every query, rounded up to whole registers of any instruction set.
    fn rows(&self, query: &Map, blocks: usize) -> Map {
        let lanes = (query.height * query.width).div_ceil(16).next_multiple_of(2);
        query.beside(Precision::F32, query.batch * self.heads, blocks, (1, lanes))
    }
}

/// The maps in single precision: those that were `widened`, the others as they are.
fn single<'a, const N: usize>(maps: [&'a Map; N], widened: &'a [Option<Map>; N]) -> [&'a Map; N] {
    std::array::from_fn(|index| widened[index].as_ref().unwrap_or(maps[index]))
}

fn planes(map: &Map) -> Vec<Plane> {
    (0..map.blocks).map(|block| map.read(block)).collect()
}

fn written(map: &mut Map) -> Vec<Plane> {
    (0..map.blocks).map(|block| map.write(block)).collect()
}

/// What is computed for a block of pixels.
#[derive(Debug)]
enum Pass {
    /// The result of a block of queries.
    Forward { softmax: [Plane; 2] },
    /// The gradient of a block of queries, and δ.
    Queries { softmax: [Plane; 2], result: Vec<Plane>, gradient: Vec<Plane>, delta: Plane },
    /// The gradients of a block of keys and of their values.
    Keys { softmax: [Plane; 2], gradient: Vec<Plane>, delta: Plane },
}

#[derive(Debug)]
struct Job<'a> {
    attention: &'a Attention,
    pass: Pass,
    /// Of one image.
    pixels: usize,
    /// Planes of query, key and value.
    inputs: [Vec<Plane>; 3],
    targets: Vec<Target>,
}

/// Where a result goes.
#[derive(Debug)]
struct Target {
    channels: usize,
    /// One for every block of the channels.
    planes: Vec<Plane>,
}

/// One block of pixels of one head of one image.
#[derive(Clone, Debug)]
struct Task {
    b: usize,
    head: usize,
    pixels: Range<usize>,
}

impl Job<'_> {
    fn run(&self, batch: usize, pool: &Pool) {
        let heads = self.attention.heads;
        // Large blocks read the other side less often, small ones occupy more threads.
        let length = self.pixels.div_ceil(64).clamp(32, 128).next_multiple_of(32);
        let blocks = self.pixels.div_ceil(length);
        (0..batch * heads * blocks).into_par_iter().for_each(|index| {
            let (b, head) = (index / blocks / heads, index / blocks % heads);
            let first = index % blocks * length;
            let task = Task { b, head, pixels: first..self.pixels.min(first + length) };
            // SAFETY: the instruction set was detected on this machine; the planes are alive and of the attention's
            // channels and the job's pixels; tasks write disjoint pixels or channels.
            unsafe {
                match self.attention.isa {
                    InstructionSet::Portable => run_task::<Portable, { Portable::BLOCKS }>(self, &task, pool),
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => run_task_avx2(self, &task, pool),
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => {
                        run_task_avx512(self, &task, pool)
                    }
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => run_task::<Portable, { Portable::BLOCKS }>(self, &task, pool),
                }
            }
        });
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width() as f32).sqrt()
    }

    /// Channels of a head's queries.
    fn width(&self) -> usize {
        self.attention.channels / self.attention.heads
    }

    /// Channels of a head's values.
    fn depth(&self) -> usize {
        self.attention.value_channels / self.attention.heads
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_task_avx512(job: &Job<'_>, task: &Task, pool: &Pool) {
    // SAFETY: passed on.
    unsafe { run_task::<Avx512, { Avx512::BLOCKS }>(job, task, pool) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_task_avx2(job: &Job<'_>, task: &Task, pool: &Pool) {
    // SAFETY: passed on.
    unsafe { run_task::<Avx2, { Avx2::BLOCKS }>(job, task, pool) }
}

/// # Safety
/// V's instruction set is there; the planes of `job` are alive, of the stated sizes, and nobody else writes the head's
/// channels of the task's pixels.
#[inline(always)]
unsafe fn run_task<V: Vector, const K: usize>(job: &Job<'_>, task: &Task, pool: &Pool) {
    // SAFETY: passed on.
    unsafe {
        match &job.pass {
            Pass::Forward { softmax } => forward::<V, K>(job, task, softmax, pool),
            Pass::Queries { softmax, result, gradient, delta } => {
                backward_queries::<V, K>(job, task, softmax, [result, gradient], delta, pool);
            }
            Pass::Keys { softmax, gradient, delta } => {
                backward_keys::<V, K>(job, task, softmax, gradient, delta, pool);
            }
        }
    }
}

/// Channels of one head that lie in one block: `lanes` numbers of pixel `j`, from `data + 16 j` on.
#[derive(Clone, Copy, Debug)]
struct Strip {
    data: *mut f32,
    lanes: usize,
}

/// The strips of head `head` of `width` channels each.
///
/// # Safety
/// The planes are alive, have an image `b`, and `width` channels for every head.
unsafe fn strips(planes: &[Plane], b: usize, head: usize, width: usize) -> Vec<Strip> {
    let mut strips = Vec::with_capacity(width / 16 + 2);
    let (mut channel, end) = (head * width, (head + 1) * width);
    while channel < end {
        let lanes = (end - channel).min(16 - channel % 16);
        // SAFETY: inside the plane's first pixel of image `b`.
        let data = unsafe { planes[channel / 16].row(b, 0).add(channel % 16) };
        strips.push(Strip { data, lanes });
        channel += lanes;
    }
    strips
}

/// The sub-blocks of a task, each of as many pixels as `K` registers have lanes: (index, pixels).
fn groups<const K: usize>(task: &Task) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (first, end) = (task.pixels.start, task.pixels.end);
    (first..end).step_by(16 * K).map(move |at| at..end.min(at + 16 * K)).enumerate()
}

/// Working memory of a task: zeros for `columns` columns of each group, and room for two blocks of scores.
fn prepare<'a, const K: usize>(pool: &'a Pool, task: &Task, columns: usize) -> (Scratch<'a>, *mut f32, [*mut f32; 2]) {
    let state = task.pixels.len().div_ceil(16 * K) * columns * K * 16;
    let size = BLOCK * K * 16;
    let mut scratch = Scratch::new(pool, (state + 2 * size) / 16);
    let first = scratch.as_mut_ptr();
    // SAFETY: the scratch memory has the columns and the scores after them.
    unsafe {
        first.write_bytes(0, state);
        (scratch, first, [first.add(state), first.add(state + size)])
    }
}

/// Blocks of the other side of a product.
fn blocks(pixels: usize) -> impl Iterator<Item = Range<usize>> {
    (0..pixels).step_by(BLOCK).map(move |at| at..pixels.min(at + BLOCK))
}

#[inline(always)]
unsafe fn forward<V: Vector, const K: usize>(job: &Job<'_>, task: &Task, softmax: &[Plane; 2], pool: &Pool) {
    let (width, depth) = (job.width(), job.depth());
    // Of each group: the queries, the sums of the values, the largest score, the sum of the exponentials.
    let columns = width + depth + 2;
    let (_scratch, state, [scores, _]) = prepare::<K>(pool, task, columns);
    let size = 16 * K;
    let state = |group: usize| state.wrapping_add(group * columns * size);
    // SAFETY: see `run_task`; the scratch memory has the columns of every group and `BLOCK` rows of scores.
    unsafe {
        let [query, key, value] = inputs(job, task);
        for (group, pixels) in groups::<K>(task) {
            gather::<V, K>(&query, pixels, job.scale(), state(group));
            for k in 0..K {
                V::splat(f32::NEG_INFINITY).store(state(group).add((width + depth) * size + k * 16));
            }
        }
        for keys in blocks(job.pixels) {
            for (group, _) in groups::<K>(task) {
                let queries = state(group);
                let sums = queries.add(width * size);
                let (maximum, total) = (sums.add(depth * size), sums.add((depth + 1) * size));
                products::<V, K>(&key, keys.clone(), queries, scores);
                let mut largest = [V::splat(0.0); K];
                for (k, largest) in largest.iter_mut().enumerate() {
                    *largest = V::load(maximum.add(k * 16));
                }
                for row in 0..keys.len() {
                    for (k, largest) in largest.iter_mut().enumerate() {
                        // In this order: a score that is not a number does not become the largest, it makes an
                        // exponential that is none.
                        *largest = V::load(scores.add(row * size + k * 16)).max(*largest);
                    }
                }
                let mut sum = [V::splat(0.0); K];
                for row in 0..keys.len() {
                    for (k, (sum, largest)) in sum.iter_mut().zip(largest).enumerate() {
                        let at = scores.add(row * size + k * 16);
                        let p = exp(V::load(at).sub(largest));
                        p.store(at);
                        *sum = sum.add(p);
                    }
                }
                let mut factor = [V::splat(0.0); K];
                for k in 0..K {
                    let (maximum, total) = (maximum.add(k * 16), total.add(k * 16));
                    factor[k] = exp(V::load(maximum).sub(largest[k]));
                    largest[k].store(maximum);
                    V::load(total).mul_add(factor[k], sum[k]).store(total);
                }
                combine::<V, K>(&value, keys.clone(), scores, factor, sums);
            }
        }
        for (group, pixels) in groups::<K>(task) {
            let sums = state(group).add(width * size);
            let (maximum, total) = (sums.add(depth * size), sums.add((depth + 1) * size));
            let mut inverse = [V::splat(1.0); K];
            let row = task.b * job.attention.heads + task.head;
            for (k, inverse) in inverse.iter_mut().enumerate() {
                *inverse = inverse.div(V::load(total.add(k * 16)));
                let at = pixels.start + k * 16;
                V::load(maximum.add(k * 16)).store(softmax[0].row(row, 0).add(at));
                inverse.store(softmax[1].row(row, 0).add(at));
            }
            scatter::<V, K>(job, task, 0, pixels, inverse, sums);
        }
    }
}

#[inline(always)]
unsafe fn backward_queries<V: Vector, const K: usize>(
    job: &Job<'_>,
    task: &Task,
    softmax: &[Plane; 2],
    [result, gradient]: [&Vec<Plane>; 2],
    delta: &Plane,
    pool: &Pool,
) {
    let (width, depth) = (job.width(), job.depth());
    // Of each group: the queries, the gradient of the result, the gradient of the queries; the result for a moment.
    let columns = 2 * width + 2 * depth;
    let (_scratch, state, [scores, products_of_values]) = prepare::<K>(pool, task, columns);
    let size = 16 * K;
    let state = |group: usize| state.wrapping_add(group * columns * size);
    let row = task.b * job.attention.heads + task.head;
    // SAFETY: see `run_task`; the scratch memory has the columns of every group and twice `BLOCK` rows of scores.
    unsafe {
        let [query, key, value] = inputs(job, task);
        let result = strips(result, task.b, task.head, depth);
        let gradient = strips(gradient, task.b, task.head, depth);
        for (group, pixels) in groups::<K>(task) {
            let incoming = state(group).add(width * size);
            let outcome = incoming.add((depth + width) * size);
            gather::<V, K>(&query, pixels.clone(), job.scale(), state(group));
            gather::<V, K>(&gradient, pixels.clone(), 1.0, incoming);
            gather::<V, K>(&result, pixels.clone(), 1.0, outcome);
            for k in 0..K {
                let mut sum = V::splat(0.0);
                for c in 0..depth {
                    let at = c * size + k * 16;
                    sum = V::load(incoming.add(at)).mul_add(V::load(outcome.add(at)), sum);
                }
                sum.store(delta.row(row, 0).add(pixels.start + k * 16));
            }
        }
        for keys in blocks(job.pixels) {
            for (group, pixels) in groups::<K>(task) {
                let queries = state(group);
                let incoming = queries.add(width * size);
                products::<V, K>(&key, keys.clone(), queries, scores);
                products::<V, K>(&value, keys.clone(), incoming, products_of_values);
                for k in 0..K {
                    let at = pixels.start + k * 16;
                    let maximum = V::load(softmax[0].row(row, 0).add(at));
                    let inverse = V::load(softmax[1].row(row, 0).add(at));
                    let delta = V::load(delta.row(row, 0).add(at));
                    for row in 0..keys.len() {
                        let at = row * size + k * 16;
                        let p = exp(V::load(scores.add(at)).sub(maximum)).mul(inverse);
                        p.mul(V::load(products_of_values.add(at)).sub(delta)).store(scores.add(at));
                    }
                }
                combine::<V, K>(&key, keys.clone(), scores, [V::splat(1.0); K], incoming.add(depth * size));
            }
        }
        for (group, pixels) in groups::<K>(task) {
            let sums = state(group).add((width + depth) * size);
            scatter::<V, K>(job, task, 0, pixels, [V::splat(job.scale()); K], sums);
        }
    }
}

#[inline(always)]
unsafe fn backward_keys<V: Vector, const K: usize>(
    job: &Job<'_>,
    task: &Task,
    softmax: &[Plane; 2],
    gradient: &[Plane],
    delta: &Plane,
    pool: &Pool,
) {
    let (width, depth) = (job.width(), job.depth());
    // Of each group: the keys, their values, the gradients of the keys and of the values.
    let columns = 2 * width + 2 * depth;
    let (_scratch, state, [scores, products_of_values]) = prepare::<K>(pool, task, columns);
    let size = 16 * K;
    let state = |group: usize| state.wrapping_add(group * columns * size);
    let row = task.b * job.attention.heads + task.head;
    // SAFETY: see `run_task`; the scratch memory has the columns of every group and twice `BLOCK` rows of scores.
    unsafe {
        let [query, key, value] = inputs(job, task);
        let gradient = strips(gradient, task.b, task.head, depth);
        let [maximum, inverse] = softmax.map(|plane| plane.row(row, 0).cast_const());
        let delta = delta.row(row, 0).cast_const();
        for (group, pixels) in groups::<K>(task) {
            gather::<V, K>(&key, pixels.clone(), job.scale(), state(group));
            gather::<V, K>(&value, pixels, 1.0, state(group).add(width * size));
        }
        let one = [V::splat(1.0); K];
        for queries in blocks(job.pixels) {
            for (group, _) in groups::<K>(task) {
                let keys = state(group);
                let values = keys.add(width * size);
                let key_sums = values.add(depth * size);
                products::<V, K>(&query, queries.clone(), keys, scores);
                products::<V, K>(&gradient, queries.clone(), values, products_of_values);
                for (row, i) in queries.clone().enumerate() {
                    let (maximum, inverse) = (V::splat(*maximum.add(i)), V::splat(*inverse.add(i)));
                    let delta = V::splat(*delta.add(i));
                    for k in 0..K {
                        let at = row * size + k * 16;
                        let p = exp(V::load(scores.add(at)).sub(maximum)).mul(inverse);
                        p.store(scores.add(at));
                        let of_values = products_of_values.add(at);
                        p.mul(V::load(of_values).sub(delta)).store(of_values);
                    }
                }
                combine::<V, K>(&query, queries.clone(), products_of_values, one, key_sums);
                combine::<V, K>(&gradient, queries.clone(), scores, one, key_sums.add(width * size));
            }
        }
        for (group, pixels) in groups::<K>(task) {
            let sums = state(group).add((width + depth) * size);
            scatter::<V, K>(job, task, 0, pixels.clone(), [V::splat(job.scale()); K], sums);
            scatter::<V, K>(job, task, 1, pixels, one, sums.add(width * size));
        }
    }
}

/// The strips of the task's head of query, key and value.
///
/// # Safety
/// As for [`run_task`].
unsafe fn inputs(job: &Job<'_>, task: &Task) -> [Vec<Strip>; 3] {
    let [query, key, value] = &job.inputs;
    let of = |planes: &[Plane], width| {
        // SAFETY: passed on.
        unsafe { strips(planes, task.b, task.head, width) }
    };
    [of(query, job.width()), of(key, job.width()), of(value, job.depth())]
}

/// `to[c][..] = factor · pixels[..][c]`: channels of up to `16 K` pixels with the pixels in the lanes, zeros for the
/// pixels that are missing.
///
/// # Safety
/// The strips reach all `pixels`; `to` has room for their channels, `16 K` numbers each.
#[inline(always)]
unsafe fn gather<V: Vector, const K: usize>(strips: &[Strip], pixels: Range<usize>, factor: f32, to: *mut f32) {
    let mut to = to;
    // SAFETY: by the caller's word.
    unsafe {
        for strip in strips {
            for lane in 0..strip.lanes {
                for k in 0..K {
                    let mut column = Lanes([0.0; 16]);
                    let first = pixels.start + k * 16;
                    for (p, number) in column.0.iter_mut().enumerate().take(pixels.end.saturating_sub(first)) {
                        *number = *strip.data.add((first + p) * 16 + lane);
                    }
                    V::load(column.0.as_ptr()).mul(V::splat(factor)).store(to.add(k * 16));
                }
                to = to.add(K * 16);
            }
        }
    }
}

/// The other way round, into target `index` of the job, where each pixel is multiplied by its factor.
///
/// # Safety
/// As for [`run_task`]; `from` has the head's channels, `16 K` numbers each.
#[inline(always)]
unsafe fn scatter<V: Vector, const K: usize>(
    job: &Job<'_>,
    task: &Task,
    index: usize,
    pixels: Range<usize>,
    factor: [V; K],
    from: *const f32,
) {
    let Target { channels, planes } = &job.targets[index];
    let width = channels / job.attention.heads;
    let mut from = from;
    // SAFETY: the head's channels of the task's pixels are this task's alone, as are the lanes after the last channel for
    // the last head; other lanes of the same pixels belong to other tasks and are not touched.
    unsafe {
        for strip in strips(planes, task.b, task.head, width) {
            for lane in 0..strip.lanes {
                for (k, factor) in factor.iter().enumerate() {
                    let mut column = Lanes([0.0; 16]);
                    V::load(from.add(k * 16)).mul(*factor).store(column.0.as_mut_ptr());
                    let first = pixels.start + k * 16;
                    for (p, number) in column.0.iter().enumerate().take(pixels.end.saturating_sub(first)) {
                        *strip.data.add((first + p) * 16 + lane) = *number;
                    }
                }
                from = from.add(K * 16);
            }
        }
        if task.head + 1 == job.attention.heads {
            let used = channels - (planes.len() - 1) * 16;
            let last = planes[planes.len() - 1].row(task.b, 0);
            for pixel in pixels {
                last.add(pixel * 16 + used).write_bytes(0, 16 - used);
            }
        }
    }
}

/// `to[row][..] = Σ_c pixels[row][c] · columns[c][..]`.
///
/// # Safety
/// The strips reach all rows; `columns` has their channels and `to` the rows, `16 K` numbers each.
#[inline(always)]
unsafe fn products<V: Vector, const K: usize>(strips: &[Strip], rows: Range<usize>, columns: *const f32, to: *mut f32) {
    let mut row = rows.start;
    while row < rows.end {
        let count = (rows.end - row).min(V::PIXELS);
        // SAFETY: passed on.
        unsafe {
            let to = to.add((row - rows.start) * K * 16);
            unrolled!(count, P => product_tile::<V, P, K>(strips, row, columns, to));
        }
        row += count;
    }
}

#[inline(always)]
unsafe fn product_tile<V: Vector, const P: usize, const K: usize>(
    strips: &[Strip],
    row: usize,
    columns: *const f32,
    to: *mut f32,
) {
    if P > V::PIXELS {
        // Tiles that this instruction set has no registers for are never asked for, and not compiled.
        unreachable!("a tile of {P} pixels");
    }
    // SAFETY: as for `products`.
    unsafe {
        let zero = V::splat(0.0);
        let mut acc = [[zero; K]; P];
        let mut columns = columns;
        for strip in strips {
            let from = strip.data.add(row * 16);
            for lane in 0..strip.lanes {
                let mut column = [zero; K];
                for (k, column) in column.iter_mut().enumerate() {
                    *column = V::load(columns.add(k * 16));
                }
                for (p, acc) in acc.iter_mut().enumerate() {
                    let x = V::splat(*from.add(p * 16 + lane));
                    for (acc, column) in acc.iter_mut().zip(column) {
                        *acc = x.mul_add(column, *acc);
                    }
                }
                columns = columns.add(K * 16);
            }
        }
        for (p, acc) in acc.iter().enumerate() {
            for (k, acc) in acc.iter().enumerate() {
                acc.store(to.add((p * K + k) * 16));
            }
        }
    }
}

/// `to[c][..] = factor[..] · to[c][..] + Σ_row pixels[row][c] · weights[row][..]`.
///
/// The rows are summed up before they are added to what is there: over many blocks that rounds less.
///
/// # Safety
/// The strips reach all rows; `weights` has the rows and `to` the channels, `16 K` numbers each.
#[inline(always)]
unsafe fn combine<V: Vector, const K: usize>(
    strips: &[Strip],
    rows: Range<usize>,
    weights: *const f32,
    factor: [V; K],
    to: *mut f32,
) {
    let mut to = to;
    for strip in strips {
        let mut lane = 0;
        while lane < strip.lanes {
            // Two equal tiles for a whole block, where there are registers for so many.
            let count = (strip.lanes - lane).min(V::PIXELS).min(8);
            // SAFETY: passed on.
            unsafe {
                let from = strip.data.add(rows.start * 16 + lane).cast_const();
                unrolled!(count, P => combine_tile::<V, P, K>(from, rows.len(), weights, factor, to));
                to = to.add(count * K * 16);
            }
            lane += count;
        }
    }
}

#[inline(always)]
unsafe fn combine_tile<V: Vector, const P: usize, const K: usize>(
    from: *const f32,
    rows: usize,
    weights: *const f32,
    factor: [V; K],
    to: *mut f32,
) {
    if P > V::PIXELS || P > 8 {
        unreachable!("a tile of {P} channels");
    }
    // SAFETY: as for `combine`.
    unsafe {
        let zero = V::splat(0.0);
        let mut acc = [[zero; K]; P];
        for row in 0..rows {
            let mut weight = [zero; K];
            for (k, weight) in weight.iter_mut().enumerate() {
                *weight = V::load(weights.add((row * K + k) * 16));
            }
            for (p, acc) in acc.iter_mut().enumerate() {
                let x = V::splat(*from.add(row * 16 + p));
                for (acc, weight) in acc.iter_mut().zip(weight) {
                    *acc = x.mul_add(weight, *acc);
                }
            }
        }
        for (p, acc) in acc.iter().enumerate() {
            for ((k, acc), factor) in acc.iter().enumerate().zip(factor) {
                let to = to.add((p * K + k) * 16);
                V::load(to).mul_add(factor, *acc).store(to);
            }
        }
    }
}
