//! A network and its data gradient as the definitions say, in double precision and plain loops.

use std::collections::HashMap;
use tweedie_kernels::network::{
    Attention, Classes, Dense, Embedding, Features, Filter, Network, Norm, Parameter, Resample, Resize, Source, Step,
    Sum,
};

/// Numbers that look random, the same ones every time (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    pub(crate) fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Mean zero, variance one.
    pub(crate) fn numbers(&mut self, n: usize) -> Vec<f32> {
        let mut uniform = || (self.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        (0..n).map(|_| ((0..4).map(|_| uniform()).sum::<f64>() - 2.0) as f32 * 3_f32.sqrt()).collect()
    }
}

/// One image: planes one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) data: Vec<f64>,
}

impl Image {
    pub(crate) fn zeros(channels: usize, height: usize, width: usize) -> Self {
        Self { channels, height, width, data: vec![0.0; channels * height * width] }
    }

    fn area(&self) -> usize {
        self.height * self.width
    }
}

/// A description with its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) network: Network,
    pub(crate) parameters: HashMap<String, Vec<f32>>,
    /// What all images are of.
    pub(crate) class: Option<usize>,
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn silu_slope(x: f64) -> f64 {
    let s = 1.0 / (1.0 + (-x).exp());
    s * (1.0 + x * (1.0 - s))
}

impl Reference {
    /// Convolution weights with variance 1/fan-in, so that values keep their size; other weights around one.
    pub(crate) fn new(network: Network, random: &mut Random) -> Self {
        let parameters = network.parameters().into_iter().map(|parameter| {
            let fan_in: usize = parameter.shape[1..].iter().product();
            let scale = 1.0 / (fan_in as f32).sqrt();
            let shift = if parameter.name.ends_with("norm.weight") { 1.0 } else { 0.0 };
            let scale = if parameter.shape.len() == 1 { 0.3 } else { scale };
            let numbers = random.numbers(parameter.elements());
            (parameter.name.clone(), numbers.into_iter().map(|x| shift + scale * x).collect())
        });
        Self { parameters: parameters.collect(), network, class: None }
    }

    fn get(&self, parameter: &Parameter) -> &[f32] {
        &self.parameters[&parameter.name]
    }

    fn dense(&self, layer: &Dense, v: &[f64]) -> Vec<f64> {
        let (weight, bias) = (self.get(&layer.weight), self.get(&layer.bias));
        let mut out = Vec::new();
        for (o, &bias) in bias.iter().enumerate() {
            let mut sum = f64::from(bias);
            for (i, &x) in v.iter().enumerate() {
                sum += f64::from(weight[o * v.len() + i]) * if layer.silu { silu(x) } else { x };
            }
            out.push(sum);
        }
        out
    }

    /// Sines and cosines, and the result of every layer.
    fn embeddings(&self, noise: f32) -> Vec<Vec<f64>> {
        let Embedding { features, layers, classes } = &self.network.embedding;
        let mut v = vec![0.0; features.channels()];
        match features {
            Features::Positional { channels, cosine_first, frequency_shift } => {
                let half = channels / 2;
                for k in 0..half {
                    let angle = 10_000_f64.powf(-(k as f64) / (half as f64 - frequency_shift)) * f64::from(noise);
                    let (sine, cosine) = if *cosine_first { (half + k, k) } else { (k, half + k) };
                    (v[sine], v[cosine]) = angle.sin_cos();
                }
            }
            Features::Learned { table } => {
                let row = f64::from(noise).round() as usize * v.len();
                v.iter_mut().zip(&self.get(table)[row..]).for_each(|(v, x)| *v = f64::from(*x));
            }
            Features::Fourier { .. } => panic!("the reference has no frequencies"),
        }
        let mut values = vec![v];
        for index in 0..=layers.len() {
            if let Some(classes) = classes.as_ref().filter(|c| c.after == index) {
                let bias = classes.bias.iter().flat_map(|bias| self.get(bias));
                values[index].iter_mut().zip(bias).for_each(|(v, x)| *v += f64::from(*x));
                let rows = self.class.map(|class| &self.get(&classes.weight)[class * values[index].len()..]);
                let row = rows.into_iter().flatten();
                values[index].iter_mut().zip(row).for_each(|(v, x)| *v += classes.scale * f64::from(*x));
            }
            if let Some(layer) = layers.get(index) {
                values.push(self.dense(layer, &values[index]));
            }
        }
        values
    }

    /// Calls `visit(output pixel, input pixel, element of the kernel)` for all that meet.
    fn pairs(source: &Source, from: (usize, usize), to: (usize, usize), mut visit: impl FnMut(usize, usize, usize)) {
        let k = source.kernel();
        let along = |o: usize, k_at: usize, size: usize| -> Option<usize> {
            let (o, k_at, half) = (o as isize, k_at as isize, (k / 2) as isize);
            let (at, end) = match source.resample {
                Resample::Same => (o + k_at - half, size as isize),
                Resample::Down { before } => (2 * o + k_at - before as isize, size as isize),
                Resample::Up => (o + k_at - half, 2 * size as isize),
            };
            let inside = (0..end).contains(&at);
            inside.then_some(at as usize / if source.resample == Resample::Up { 2 } else { 1 })
        };
        for ky in 0..k {
            for kx in 0..k {
                for y in 0..to.0 {
                    let Some(iy) = along(y, ky, from.0) else { continue };
                    for x in 0..to.1 {
                        let Some(ix) = along(x, kx, from.1) else { continue };
                        visit(y * to.1 + x, iy * from.1 + ix, ky * k + kx);
                    }
                }
            }
        }
    }

    fn concatenated(source: &Source, values: &[Image]) -> Image {
        let first = &values[source.inputs[0]];
        let mut x = Image::zeros(0, first.height, first.width);
        for &value in &source.inputs {
            x.channels += values[value].channels;
            x.data.extend(&values[value].data);
        }
        x
    }

    /// Normalised `x̂` and `1 / √(var + ε)` of each group.
    fn normalised(norm: &Norm, x: &Image) -> (Image, Vec<f64>) {
        let mut out = x.clone();
        let mut inverses = Vec::new();
        for group in out.data.chunks_mut(x.data.len() / norm.groups) {
            let n = group.len() as f64;
            let mean = group.iter().sum::<f64>() / n;
            let variance = group.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let inverse = 1.0 / (variance + norm.epsilon).sqrt();
            group.iter_mut().for_each(|x| *x = (*x - mean) * inverse);
            inverses.push(inverse);
        }
        (out, inverses)
    }

    /// The factor and the shift of a channel by the embedding: `1 + s` and `t`.
    fn modulation(&self, norm: &Norm, embedding: &[f64], c: usize) -> (f64, f64) {
        let Some(layer) = &norm.modulation else { return (1.0, 0.0) };
        let numbers = self.dense(layer, embedding);
        (1.0 + numbers[c], numbers[numbers.len() / 2 + c])
    }

    /// What a convolution or a filter reads, before the activation.
    fn affine(&self, norm: Option<&Norm>, x: &Image, embedding: &[f64]) -> Image {
        let Some(norm) = norm else { return x.clone() };
        let (mut z, _) = Self::normalised(norm, x);
        let area = z.area();
        let (weight, bias) = (self.get(&norm.weight), self.get(&norm.bias));
        for (c, plane) in z.data.chunks_mut(area).enumerate() {
            let (factor, shift) = self.modulation(norm, embedding, c);
            let affine = |x: f64| (x * f64::from(weight[c]) + f64::from(bias[c])) * factor + shift;
            plane.iter_mut().for_each(|x| *x = affine(*x));
        }
        z
    }

    /// Calls `visit(output pixel, input pixel, weight)` for all that meet in a plane of `height × width`.
    fn filter(filter: &Filter, (height, width): (usize, usize), mut visit: impl FnMut(usize, usize, f64)) {
        let mut along = |(to_height, to_width): (usize, usize), weight: &dyn Fn(usize, usize) -> f64| {
            for to in 0..to_height * to_width {
                for from in 0..height * width {
                    let vertical = weight(to / to_width, from / width);
                    let both = vertical * weight(to % to_width, from % width);
                    if both != 0.0 {
                        visit(to, from, both);
                    }
                }
            }
        };
        let (doubled, halved) = ((2 * height, 2 * width), (height / 2, width / 2));
        let tap = |taps: &[f64], k: isize| match usize::try_from(k) {
            Ok(k) if k < taps.len() => taps[taps.len() - 1 - k] / taps.iter().sum::<f64>(),
            _ => 0.0,
        };
        match filter {
            Filter::Nearest => along(doubled, &|to, from| if to / 2 == from { 1.0 } else { 0.0 }),
            Filter::Average => along(halved, &|to, from| if from / 2 == to { 0.5 } else { 0.0 }),
            // Row 2·from of the image with zeros in between, after so many rows of zeros; element k of the reversed
            // kernel lies on row to + k.
            Filter::FirUp(taps) => {
                let before = taps.len().div_ceil(2) as isize;
                along(doubled, &|to, from| 2.0 * tap(taps, 2 * from as isize + before - to as isize));
            }
            Filter::FirDown(taps) => {
                let before = (taps.len() as isize - 1) / 2;
                along(halved, &|to, from| tap(taps, from as isize + before - 2 * to as isize));
            }
        }
    }

    /// The image a filter makes.
    fn resized(&self, resize: &Resize, values: &[Image], embedding: &[f64]) -> Image {
        let mut z = self.affine(resize.norm.as_ref(), &values[resize.input], embedding);
        if resize.silu {
            z.data.iter_mut().for_each(|x| *x = silu(*x));
        }
        let (height, width) = match &resize.filter {
            Filter::Nearest | Filter::FirUp(_) => (z.height * 2, z.width * 2),
            Filter::Average | Filter::FirDown(_) => (z.height / 2, z.width / 2),
        };
        let mut out = Image::zeros(z.channels, height, width);
        let (from_area, to_area) = (z.area(), out.area());
        Self::filter(&resize.filter, (z.height, z.width), |to, from, weight| {
            for c in 0..z.channels {
                out.data[c * to_area + to] += weight * z.data[c * from_area + from];
            }
        });
        out
    }

    /// Of `u`, the gradient behind a norm with result `z` and an activation, makes that of `x` before them.
    fn norm_and_activation_backward(
        &self,
        (norm, silu): (Option<&Norm>, bool),
        (x, z, u): (&Image, &Image, &mut Image),
        embedding: &[f64],
        add: &mut impl FnMut(&Parameter, usize, f64),
    ) {
        if silu {
            u.data.iter_mut().zip(&z.data).for_each(|(u, &z)| *u *= silu_slope(z));
        }
        let Some(norm) = norm else { return };
        let (normal, inverses) = Self::normalised(norm, x);
        let weight = self.get(&norm.weight);
        let area = x.area();
        for (c, plane) in u.data.chunks_mut(area).enumerate() {
            let normal = &normal.data[c * area..][..area];
            let (factor, _) = self.modulation(norm, embedding, c);
            add(&norm.weight, c, factor * plane.iter().zip(normal).map(|(u, n)| u * n).sum::<f64>());
            add(&norm.bias, c, factor * plane.iter().sum::<f64>());
            plane.iter_mut().for_each(|u| *u *= f64::from(weight[c]) * factor);
        }
        let size = x.data.len() / norm.groups;
        for ((u, normal), inverse) in u.data.chunks_mut(size).zip(normal.data.chunks(size)).zip(inverses) {
            let mean = u.iter().sum::<f64>() / size as f64;
            let slope = u.iter().zip(normal).map(|(u, n)| u * n).sum::<f64>() / size as f64;
            u.iter_mut().zip(normal).for_each(|(u, n)| *u = inverse * (*u - mean - n * slope));
        }
    }

    /// `p_ij` of one head, row by row.
    fn attention_weights(query: &Image, key: &Image, head: usize, heads: usize) -> Vec<Vec<f64>> {
        let (area, width) = (query.area(), query.channels / heads);
        let channels = head * width..(head + 1) * width;
        let row = |i: usize| {
            let dot = |j: usize| -> f64 {
                channels.clone().map(|c| query.data[c * area + i] * key.data[c * area + j]).sum::<f64>()
            };
            let scores: Vec<f64> = (0..area).map(|j| dot(j) / (width as f64).sqrt()).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exps: Vec<f64> = scores.iter().map(|s| (s - largest).exp()).collect();
            let sum: f64 = exps.iter().sum();
            exps.into_iter().map(|e| e / sum).collect()
        };
        (0..area).map(row).collect()
    }

    fn attend(attention: &Attention, values: &[Image]) -> Image {
        let &Attention { query, key, value, heads } = attention;
        let value = &values[value];
        let (area, depth) = (value.area(), value.channels / heads);
        let mut out = Image::zeros(value.channels, value.height, value.width);
        for head in 0..heads {
            let weights = Self::attention_weights(&values[query], &values[key], head, heads);
            for c in head * depth..(head + 1) * depth {
                for (i, row) in weights.iter().enumerate() {
                    out.data[c * area + i] = row.iter().zip(&value.data[c * area..]).map(|(p, v)| p * v).sum();
                }
            }
        }
        out
    }

    fn attend_backward(attention: &Attention, values: &[Image], out: &Image, gradients: &mut [Image]) {
        let &Attention { query, key, value, heads } = attention;
        let (area, depth) = (out.area(), out.channels / heads);
        let width = values[query].channels / heads;
        let scale = 1.0 / (width as f64).sqrt();
        for head in 0..heads {
            let weights = Self::attention_weights(&values[query], &values[key], head, heads);
            for (i, p) in weights.iter().enumerate() {
                let of_weights: Vec<f64> = (0..area)
                    .map(|j| {
                        let channels = head * depth..(head + 1) * depth;
                        channels.map(|c| out.data[c * area + i] * values[value].data[c * area + j]).sum()
                    })
                    .collect();
                let mean: f64 = p.iter().zip(&of_weights).map(|(p, d)| p * d).sum();
                for (j, (p, d)) in p.iter().zip(&of_weights).enumerate() {
                    for c in head * depth..(head + 1) * depth {
                        gradients[value].data[c * area + j] += p * out.data[c * area + i];
                    }
                    let of_score = scale * p * (d - mean);
                    for c in head * width..(head + 1) * width {
                        gradients[query].data[c * area + i] += of_score * values[key].data[c * area + j];
                        gradients[key].data[c * area + j] += of_score * values[query].data[c * area + i];
                    }
                }
            }
        }
    }

    /// All values of one image.
    pub(crate) fn values(&self, x: &Image, noise: f32) -> Vec<Image> {
        let embedding = self.embeddings(noise).pop().unwrap();
        let mut values = vec![x.clone()];
        for step in &self.network.steps {
            let step = match step {
                Step::Sum(step) => step,
                Step::Attention(attention) => {
                    values.push(Self::attend(attention, &values));
                    continue;
                }
                Step::Resize(resize) => {
                    values.push(self.resized(resize, &values, &embedding));
                    continue;
                }
            };
            let first = &values[step.sources[0].inputs[0]];
            let (height, width) = match step.sources[0].resample {
                Resample::Same => (first.height, first.width),
                Resample::Down { .. } => (first.height / 2, first.width / 2),
                Resample::Up => (first.height * 2, first.width * 2),
            };
            let mut out = Image::zeros(step.channels, height, width);
            let area = out.area();
            for source in &step.sources {
                let mut z = self.affine(source.norm.as_ref(), &Self::concatenated(source, &values), &embedding);
                if source.silu {
                    z.data.iter_mut().for_each(|x| *x = silu(*x));
                }
                let (weight, taps) = (self.get(&source.weight), source.kernel() * source.kernel());
                Self::pairs(source, (z.height, z.width), (height, width), |to, from, k| {
                    for o in 0..step.channels {
                        let mut sum = 0.0;
                        for i in 0..z.channels {
                            sum += f64::from(weight[(o * z.channels + i) * taps + k]) * z.data[i * z.area() + from];
                        }
                        out.data[o * area + to] += sum;
                    }
                });
            }
            let projected = step.embedding.as_ref().map(|layer| self.dense(layer, &embedding));
            for (o, plane) in out.data.chunks_mut(area).enumerate() {
                let biases = step.sources.iter().filter_map(|source| source.bias.as_ref());
                let mut shift: f64 = biases.map(|bias| f64::from(self.get(bias)[o])).sum();
                shift += projected.as_ref().map_or(0.0, |p| p[o]);
                plane.iter_mut().for_each(|x| *x += shift);
            }
            if let Some(value) = step.residual {
                out.data.iter_mut().zip(&values[value].data).for_each(|(x, r)| *x += r);
            }
            out.data.iter_mut().for_each(|x| *x *= step.scale);
            values.push(out);
        }
        values
    }

    /// `(∂F/∂x)ᵀ v`, by the chain rule.
    pub(crate) fn pullback(&self, values: &[Image], noise: f32, v: &Image) -> Image {
        self.gradients(values, noise, v).0
    }

    /// Gradients of `Σ v · F` of one image: of its pixels, and of all parameters by name but those of classes and of what
    /// modulates a norm, which stay zeros.
    pub(crate) fn gradients(&self, values: &[Image], noise: f32, v: &Image) -> (Image, HashMap<String, Vec<f64>>) {
        let mut parameters: HashMap<String, Vec<f64>> =
            self.parameters.iter().map(|(name, values)| (name.clone(), vec![0.0; values.len()])).collect();
        let mut add = |parameter: &Parameter, at: usize, g: f64| parameters.get_mut(&parameter.name).unwrap()[at] += g;
        let embeddings = self.embeddings(noise);
        let mut embedded = vec![0.0; embeddings[embeddings.len() - 1].len()];
        let mut gradients: Vec<Image> = values.iter().map(|x| Image::zeros(x.channels, x.height, x.width)).collect();
        gradients[values.len() - 1] = v.clone();
        for (index, step) in self.network.steps.iter().enumerate().rev() {
            let mut out = gradients[index + 1].clone();
            let embedding = &embeddings[embeddings.len() - 1];
            let step = match step {
                Step::Sum(step) => step,
                Step::Attention(attention) => {
                    Self::attend_backward(attention, values, &out, &mut gradients);
                    continue;
                }
                Step::Resize(resize) => {
                    let x = &values[resize.input];
                    let z = self.affine(resize.norm.as_ref(), x, embedding);
                    let mut u = Image::zeros(x.channels, x.height, x.width);
                    let (from_area, to_area) = (x.area(), out.area());
                    Self::filter(&resize.filter, (x.height, x.width), |to, from, weight| {
                        for c in 0..x.channels {
                            u.data[c * from_area + from] += weight * out.data[c * to_area + to];
                        }
                    });
                    let of = (resize.norm.as_ref(), resize.silu);
                    self.norm_and_activation_backward(of, (x, &z, &mut u), embedding, &mut add);
                    gradients[resize.input].data.iter_mut().zip(&u.data).for_each(|(g, x)| *g += x);
                    continue;
                }
            };
            out.data.iter_mut().for_each(|x| *x *= step.scale);
            let sums: Vec<f64> = out.data.chunks(out.area()).map(|plane| plane.iter().sum()).collect();
            if let Some(layer) = &step.embedding {
                let back = self.dense_gradient(layer, &embeddings[embeddings.len() - 1], &sums, &mut add);
                embedded.iter_mut().zip(back).for_each(|(sum, g)| *sum += g);
            }
            if let Some(value) = step.residual {
                gradients[value].data.iter_mut().zip(&out.data).for_each(|(g, x)| *g += x);
            }
            for source in &step.sources {
                let x = Self::concatenated(source, values);
                let z = self.affine(source.norm.as_ref(), &x, embedding);
                if let Some(bias) = &source.bias {
                    sums.iter().enumerate().for_each(|(o, &sum)| add(bias, o, sum));
                }
                let mut u = Image::zeros(z.channels, z.height, z.width);
                let activate = |z: &f64| if source.silu { silu(*z) } else { *z };
                let activated: Vec<f64> = z.data.iter().map(activate).collect();
                let mut of_weight = vec![0.0; source.weight.elements()];
                let (weight, taps) = (self.get(&source.weight), source.kernel() * source.kernel());
                Self::pairs(source, (z.height, z.width), (out.height, out.width), |to, from, k| {
                    for i in 0..z.channels {
                        let mut sum = 0.0;
                        let read = activated[i * z.area() + from];
                        for o in 0..step.channels {
                            let (at, g) = ((o * z.channels + i) * taps + k, out.data[o * out.area() + to]);
                            sum += f64::from(weight[at]) * g;
                            of_weight[at] += g * read;
                        }
                        u.data[i * z.area() + from] += sum;
                    }
                });
                of_weight.iter().enumerate().for_each(|(at, &g)| add(&source.weight, at, g));
                let of = (source.norm.as_ref(), source.silu);
                self.norm_and_activation_backward(of, (&x, &z, &mut u), embedding, &mut add);
                let mut rest = &u.data[..];
                for &value in &source.inputs {
                    let (part, after) = rest.split_at(values[value].data.len());
                    gradients[value].data.iter_mut().zip(part).for_each(|(g, x)| *g += x);
                    rest = after;
                }
            }
        }
        for (index, layer) in self.network.embedding.layers.iter().enumerate().rev() {
            embedded = self.dense_gradient(layer, &embeddings[index], &embedded, &mut add);
        }
        (gradients.swap_remove(0), parameters)
    }

    /// Adds the gradients of a layer with argument `v` whose result has gradient `g`; returns that of the argument.
    fn dense_gradient(
        &self,
        layer: &Dense,
        v: &[f64],
        g: &[f64],
        add: &mut impl FnMut(&Parameter, usize, f64),
    ) -> Vec<f64> {
        let weight = self.get(&layer.weight);
        let mut back = vec![0.0; v.len()];
        for (o, &g) in g.iter().enumerate() {
            add(&layer.bias, o, g);
            for (i, &x) in v.iter().enumerate() {
                add(&layer.weight, o * v.len() + i, g * if layer.silu { silu(x) } else { x });
                back[i] += g * f64::from(weight[o * v.len() + i]) * if layer.silu { silu_slope(x) } else { 1.0 };
            }
        }
        back
    }
}

/// A step that is known to be a sum.
pub(crate) fn sum(network: &mut Network, step: usize) -> &mut Sum {
    match &mut network.steps[step] {
        Step::Sum(sum) => sum,
        step => panic!("{} is no sum", step.name()),
    }
}

/// A description made step by step.
#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    pub(crate) network: Network,
}

impl Sketch {
    /// Without steps, its embedding through one layer.
    pub(crate) fn new(channels: usize) -> Self {
        let layer = Dense {
            weight: Parameter::new("embedding.weight", &[10, 8]),
            bias: Parameter::new("embedding.bias", &[10]),
            silu: false,
        };
        let features = Features::Positional { channels: 8, cosine_first: true, frequency_shift: 0.0 };
        let embedding = Embedding { features, layers: vec![layer], classes: None };
        Self { network: Network { channels, patch: 1, embedding, steps: Vec::new() } }
    }

    /// A source with a bias for the next step; `groups` of 0 for no norm.
    pub(crate) fn source(
        &self,
        inputs: &[usize],
        channels: usize,
        size: usize,
        resample: Resample,
        groups: usize,
        silu: bool,
    ) -> Source {
        let name = format!("{}.{size}.{}", self.network.steps.len(), inputs.len());
        let total = inputs.iter().map(|&value| self.network.value_channels(value)).sum();
        Source {
            inputs: inputs.to_vec(),
            norm: (groups > 0).then(|| Norm {
                groups,
                epsilon: 1e-5,
                weight: Parameter::new(format!("{name}.norm.weight"), &[total]),
                bias: Parameter::new(format!("{name}.norm.bias"), &[total]),
                modulation: None,
            }),
            silu,
            weight: Parameter::new(format!("{name}.weight"), &[channels, total, size, size]),
            bias: Some(Parameter::new(format!("{name}.bias"), &[channels])),
            resample,
        }
    }

    /// Adds a step and gives the index of its value.
    pub(crate) fn push(&mut self, sources: Vec<Source>, embedding: bool, residual: Option<usize>) -> usize {
        let channels = sources[0].weight.shape[0];
        let name = self.network.steps.len();
        let embedding = embedding.then(|| Dense {
            weight: Parameter::new(format!("{name}.projection.weight"), &[channels, 10]),
            bias: Parameter::new(format!("{name}.projection.bias"), &[channels]),
            silu: true,
        });
        self.network.steps.push(Sum { sources, embedding, residual, channels, scale: 1.0 }.into());
        self.network.steps.len()
    }

    /// Adds an attention and gives the index of its value.
    pub(crate) fn attention(&mut self, [query, key, value]: [usize; 3], heads: usize) -> usize {
        self.network.steps.push(Attention { query, key, value, heads }.into());
        self.network.steps.len()
    }

    /// The usual block: norm, projections of `value`, attention, projection, and `value` itself.
    pub(crate) fn attention_block(&mut self, value: usize, groups: usize, heads: usize) -> usize {
        let channels = self.network.value_channels(value);
        let inputs = [0; 3].map(|_| {
            let source = self.matrix(self.source(&[value], channels, 1, Resample::Same, groups, false));
            self.push(vec![source], false, None)
        });
        let attended = self.attention(inputs, heads);
        let source = self.matrix(self.source(&[attended], channels, 1, Resample::Same, 0, false));
        self.push(vec![source], false, Some(value))
    }

    /// Adds a filter after a norm in `groups` (0 for none) and gives the index of its value.
    pub(crate) fn resize(&mut self, input: usize, filter: Filter, groups: usize, silu: bool) -> usize {
        let channels = self.network.value_channels(input);
        let norm = self.source(&[input], channels, 1, Resample::Same, groups, silu).norm;
        self.network.steps.push(Resize { input, norm, silu, filter }.into());
        self.network.steps.len()
    }

    /// A norm that the embedding modulates.
    pub(crate) fn modulated(&self, norm: Option<Norm>) -> Option<Norm> {
        let norm = norm?;
        let name = norm.weight.name.replace("norm.weight", "modulation");
        let channels = norm.weight.elements();
        let modulation = Dense {
            weight: Parameter::new(format!("{name}.weight"), &[2 * channels, 10]),
            bias: Parameter::new(format!("{name}.bias"), &[2 * channels]),
            silu: true,
        };
        Some(Norm { modulation: Some(modulation), ..norm })
    }

    /// A convolution of 1 × 1 whose weight has two axes, as that of a fully connected layer.
    fn matrix(&self, mut source: Source) -> Source {
        source.weight.shape.truncate(2);
        source
    }
}

/// The chain rule above is checked against differences, so that the two cannot share a mistake.
fn checked() -> (Reference, Image, Image, Random) {
    let mut random = Random(7);
    let mut sketch = Sketch::new(3);
    sketch.network.embedding.layers.push(Dense {
        weight: Parameter::new("embedding.2.weight", &[10, 10]),
        bias: Parameter::new("embedding.2.bias", &[10]),
        silu: true,
    });
    let a = sketch.push(vec![sketch.source(&[0], 5, 3, Resample::Same, 0, true)], true, None);
    let b = sketch.push(vec![sketch.source(&[a], 4, 3, Resample::Down { before: 0 }, 5, true)], false, None);
    let c = sketch.push(vec![sketch.source(&[b], 5, 3, Resample::Up, 2, false)], true, Some(a));
    let sources = vec![
        sketch.source(&[c, a], 4, 3, Resample::Same, 5, true),
        sketch.source(&[a], 4, 1, Resample::Same, 0, false),
    ];
    let d = sketch.push(sources, false, None);
    sketch.attention_block(d, 2, 2);
    let mut reference = Reference::new(sketch.network, &mut random);
    // Multiples of 2⁻¹², so that the steps of the differences are exact in single precision.
    for x in reference.parameters.values_mut().flatten() {
        *x = (*x * 4096.0).round() / 4096.0;
    }
    let image = |random: &mut Random, channels: usize| Image {
        data: random.numbers(channels * 24).into_iter().map(f64::from).collect(),
        ..Image::zeros(channels, 4, 6)
    };
    let (x, v) = (image(&mut random, 3), image(&mut random, 4));
    (reference, x, v, random)
}

fn product(reference: &Reference, x: &Image, v: &Image) -> f64 {
    let values = reference.values(x, 0.4);
    values[values.len() - 1].data.iter().zip(&v.data).map(|(y, v)| y * v).sum()
}

fn agrees_with_differences(reference: &Reference, x: &Image, v: &Image, random: &mut Random) {
    let d = random.numbers(x.data.len());
    let along = |step: f64| {
        let mut x = x.clone();
        x.data.iter_mut().zip(&d).for_each(|(x, d)| *x += step * f64::from(*d));
        product(reference, &x, v)
    };
    let difference = (along(1e-5) - along(-1e-5)) / 2e-5;
    let gradient = reference.pullback(&reference.values(x, 0.4), 0.4, v);
    let product: f64 = gradient.data.iter().zip(&d).map(|(g, d)| g * f64::from(*d)).sum();
    assert!((difference - product).abs() < 1e-8 * product.abs().max(1.0), "{difference} and {product}");
}

#[test]
fn the_reference_gradient_agrees_with_central_differences() {
    let (reference, x, v, mut random) = checked();
    agrees_with_differences(&reference, &x, &v, &mut random);
}

/// Modulated norms, sums times a number, every filter, a class.
pub(crate) fn with_everything(random: &mut Random) -> Reference {
    let taps = vec![1.0, 3.0, 3.5, 1.5];
    let mut sketch = Sketch::new(3);
    sketch.network.embedding.classes = Some(Classes {
        weight: Parameter::new("classes", &[4, 10]),
        scale: 1.0,
        bias: None,
        after: 1,
        required: false,
    });
    let a = sketch.push(vec![sketch.source(&[0], 6, 3, Resample::Same, 0, false)], true, None);
    let mut source = sketch.source(&[a], 6, 3, Resample::Same, 3, true);
    source.norm = sketch.modulated(source.norm);
    let b = sketch.push(vec![source], false, Some(a));
    sum(&mut sketch.network, b - 1).scale = 0.5_f64.sqrt();
    let c = sketch.resize(b, Filter::Average, 2, true);
    let d = sketch.resize(b, Filter::FirDown(taps.clone()), 0, false);
    let mut source = sketch.source(&[c, d], 6, 3, Resample::Same, 4, true);
    source.norm = sketch.modulated(source.norm);
    let e = sketch.push(vec![source, sketch.source(&[c, d], 6, 1, Resample::Same, 0, false)], true, None);
    sum(&mut sketch.network, e - 1).scale = 1.5;
    let f = sketch.resize(e, Filter::Nearest, 0, true);
    let g = sketch.resize(e, Filter::FirUp(taps), 3, false);
    sketch.push(vec![sketch.source(&[f, g, b], 5, 3, Resample::Same, 3, true)], false, None);
    Reference { class: Some(2), ..Reference::new(sketch.network, random) }
}

#[test]
fn the_reference_gradient_of_everything_else_agrees_with_central_differences() {
    let mut random = Random(8);
    let reference = with_everything(&mut random);
    let mut image = |channels: usize| Image {
        data: random.numbers(channels * 24).into_iter().map(f64::from).collect(),
        ..Image::zeros(channels, 4, 6)
    };
    let (x, v) = (image(3), image(5));
    agrees_with_differences(&reference, &x, &v, &mut Random(9));
    let without = Reference { class: None, ..reference.clone() };
    assert!((product(&reference, &x, &v) - product(&without, &x, &v)).abs() > 1e-3, "the class changes nothing");
}

#[test]
fn the_reference_gradients_of_every_parameter_agree_with_central_differences() {
    let (reference, x, v, mut random) = checked();
    let (_, gradients) = reference.gradients(&reference.values(&x, 0.4), 0.4, &v);
    for parameter in reference.network.parameters() {
        let signs: Vec<f32> = (0..parameter.elements()).map(|_| random.of(&[-1.0, 1.0])).collect();
        let slope = |step: f32| {
            let along = |step: f32| {
                let mut moved = reference.clone();
                let values = moved.parameters.get_mut(&parameter.name).unwrap();
                values.iter_mut().zip(&signs).for_each(|(value, sign)| *value += step * sign);
                product(&moved, &x, &v)
            };
            (along(step) - along(-step)) / (2.0 * f64::from(step))
        };
        // Two steps, so that the error falls with the fourth power of the step.
        let difference = (4.0 * slope(1.0 / 2048.0) - slope(1.0 / 1024.0)) / 3.0;
        let product: f64 = gradients[&parameter.name].iter().zip(&signs).map(|(g, s)| g * f64::from(*s)).sum();
        let close = (difference - product).abs() < 1e-8 * product.abs().max(1.0);
        assert!(close, "{}: {difference} and {product}", parameter.name);
        // What is added to every key alike changes no weight of an attention: here step 5 makes the keys.
        let takes_part = !parameter.name.starts_with("5.") || !parameter.name.ends_with("bias");
        let large = gradients[&parameter.name].iter().any(|g| g.abs() > 1e-3);
        assert_eq!(large, takes_part, "{} takes part", parameter.name);
    }
}
