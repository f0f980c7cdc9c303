//! The main job as a library call.

use crate::models::EMBEDDED;
use std::path::Path;
use std::time::{Duration, Instant};
use tweedie::image::{DecodeOptions, Depth, Mask, Photo};
use tweedie::models::{Model, ModelOptions};
use tweedie::samplers::SAMPLERS;
use tweedie::{Error, Progress, RestoreOptions, Restored, inpaint, inpaint_observed, plan_inpaint};

/// A piece of a real photo.
fn chelsea(left: usize, top: usize, width: usize, height: usize) -> Photo {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/photos/chelsea.png");
    let photo = Photo::open(&path, &DecodeOptions::default()).unwrap();
    let sample = |i: usize| photo.sample(left + i / 3 % width, top + i / 3 / width, i % 3) as u8;
    Photo::from_u8(width, height, 3, (0..3 * width * height).map(sample).collect()).unwrap()
}

/// The crop that most tests use.
fn crop() -> Photo {
    chelsea(140, 80, 96, 80)
}

fn hole(width: usize, height: usize, left: usize, top: usize, size: usize) -> Mask {
    Mask::from_fn(width, height, |x, y| (left..left + size).contains(&x) && (top..top + size).contains(&y))
}

fn small_hole() -> Mask {
    hole(96, 80, 40, 30, 6)
}

fn embedded() -> RestoreOptions<'static> {
    RestoreOptions { model: Some(&EMBEDDED), steps: Some(2), seed: 4, ..RestoreOptions::default() }
}

fn gaussian() -> Model {
    Model::open("gaussian:mean=0.2,std=0.3", &ModelOptions::default()).unwrap()
}

fn analytic(model: &Model) -> RestoreOptions<'_> {
    RestoreOptions { model: Some(model), steps: Some(3), seed: 4, ..RestoreOptions::default() }
}

fn pixels(photo: &Photo) -> Vec<u16> {
    match photo.samples_u8() {
        Some(samples) => samples.iter().map(|&sample| sample.into()).collect(),
        None => photo.samples_u16().unwrap().to_vec(),
    }
}

/// Samples of the masked pixels only.
fn filled(photo: &Photo, mask: &Mask) -> Vec<u16> {
    let channels = photo.channels();
    let masked = |i: usize| mask.is_set(i / channels % photo.width(), i / channels / photo.width());
    pixels(photo).into_iter().enumerate().filter(|&(i, _)| masked(i)).map(|(_, sample)| sample).collect()
}

#[track_caller]
fn assert_known_is_untouched(result: &Restored, photo: &Photo, mask: &Mask) {
    let known = mask.clone().invert();
    for k in 0..result.len() {
        let sample = result.sample(k);
        assert_eq!((sample.channels(), sample.depth()), (photo.channels(), photo.depth()));
        assert!(filled(sample, &known) == filled(photo, &known), "sample {k} changes known pixels");
        assert!(filled(sample, mask) != filled(photo, mask), "sample {k} fills nothing");
    }
    assert!(filled(&result.mean().unwrap(), &known) == filled(photo, &known), "the mean changes known pixels");
}

#[test]
fn samples_keep_what_is_known_and_do_not_depend_on_how_many_are_drawn() {
    let (photo, mask) = (crop(), small_hole());
    let options = RestoreOptions { steps: Some(6), ..embedded() };
    let three = inpaint(&photo, &mask, &RestoreOptions { samples: 3, ..options.clone() }).unwrap();
    assert_eq!((three.len(), three.is_empty()), (3, false));
    assert_known_is_untouched(&three, &photo, &mask);
    let one = inpaint(&photo, &mask, &options).unwrap();
    assert!(pixels(one.sample(0)) == pixels(three.sample(0)), "sample 0 of one and of three");
    let two = inpaint(&photo, &mask, &RestoreOptions { samples: 2, ..options.clone() }).unwrap();
    assert!(pixels(two.sample(1)) == pixels(three.sample(1)), "sample 1 of two and of three");
    assert!(pixels(&one.mean().unwrap()) == pixels(one.sample(0)), "the mean of one sample is the sample");
    assert!(pixels(&one.std().unwrap()).iter().all(|&level| level == 0), "one sample has no spread");

    let samples: Vec<Vec<u16>> = (0..3).map(|k| filled(three.sample(k), &mask)).collect();
    assert!(samples[0] != samples[1] && samples[1] != samples[2], "samples differ");
    let std = three.std().unwrap();
    let outside = mask.clone().invert();
    assert!(filled(&std, &outside).iter().all(|&level| level == 0), "what is known has no spread");
    let mut compared = 0;
    for ((i, mean), std) in filled(&three.mean().unwrap(), &mask).into_iter().enumerate().zip(filled(&std, &mask)) {
        let of = samples.iter().map(|sample| f64::from(sample[i]));
        let (low, high) = of.clone().fold((255.0_f64, 0.0_f64), |(low, high), v| (low.min(v), high.max(v)));
        assert!((low..=high).contains(&mean.into()), "value {i}: mean {mean} of samples from {low} to {high}");
        // Four levels for one of standard deviation; the samples were rounded and cut off at black and white, the
        // moments were not.
        if low > 0.0 && high < 255.0 {
            let average = of.clone().sum::<f64>() / 3.0;
            let expected = (4.0 * (of.map(|v| (v - average).powi(2)).sum::<f64>() / 2.0).sqrt()).min(255.0);
            assert!((f64::from(std) - expected).abs() < 4.0, "value {i}: spread {std} against {expected}");
            compared += usize::from(expected < 255.0);
        }
    }
    assert!(compared > 50, "{compared} values");
}

#[test]
fn a_seed_gives_the_same_bytes_with_one_and_two_threads_and_another_seed_others() {
    let (photo, mask) = (crop(), small_hole());
    let with = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let result = pool.install(|| inpaint(&photo, &mask, &RestoreOptions { seed, ..embedded() })).unwrap();
        pixels(result.sample(0))
    };
    let two = with(2, 4);
    assert!(with(1, 4) == two, "one and two threads");
    assert!(with(2, 5) != two, "two seeds");
}

#[test]
fn holes_far_apart_are_sampled_apart_and_do_not_know_of_one_another() {
    let photo = chelsea(100, 60, 200, 64);
    let (left, right) = (hole(200, 64, 20, 20, 6), hole(200, 64, 170, 30, 6));
    let options = RestoreOptions { context: Some(16), ..embedded() };
    let both = inpaint(&photo, &left.clone().union(&right), &options).unwrap();
    assert_eq!((both.plan.regions, both.plan.windows), (2, 2));
    for (name, mask) in [("left", &left), ("right", &right)] {
        let alone = inpaint(&photo, mask, &options).unwrap();
        assert_eq!(alone.plan.regions, 1);
        assert!(filled(alone.sample(0), mask) == filled(both.sample(0), mask), "the {name} hole");
    }
    let together =
        plan_inpaint(&photo, &left.union(&right), &RestoreOptions { context: Some(96), ..embedded() }).unwrap();
    assert_eq!(together.regions, 1);
}

#[test]
fn grey_and_16_bit_photos_keep_their_form_and_their_known_samples() {
    let (model, mask) = (gaussian(), small_hole());
    let count = 96 * 80;
    for channels in [1, 2, 3, 4] {
        let alpha = channels % 2 == 0;
        let value = |i: usize| if alpha && i % channels == channels - 1 { 200 } else { i * 37 % 251 };
        let eight = (0..count * channels).map(|i| value(i) as u8).collect();
        let sixteen = (0..count * channels).map(|i| (value(i) * 257 + 3) as u16).collect();
        for (photo, depth) in [
            (Photo::from_u8(96, 80, channels, eight).unwrap(), Depth::Eight),
            (Photo::from_u16(96, 80, channels, sixteen).unwrap(), Depth::Sixteen),
        ] {
            let result = inpaint(&photo, &mask, &RestoreOptions { samples: 2, ..analytic(&model) }).unwrap();
            assert_known_is_untouched(&result, &photo, &mask);
            assert_eq!(result.sample(0).depth(), depth);
            let samples = filled(result.sample(0), &mask);
            if alpha {
                let opacity = photo.sample(0, 0, channels - 1);
                assert!(samples.chunks(channels).all(|p| p[channels - 1] == opacity), "opacity changes");
            }
            if depth == Depth::Sixteen {
                assert!(samples.iter().any(|&sample| sample % 257 != 0), "16 bits are filled with 8");
            }
        }
    }
}

#[test]
fn transparent_pixels_come_back_as_they_were_and_their_hidden_colour_is_not_used() {
    let (opaque, mask) = (crop(), small_hole());
    // Transparent below row 36: through the hole and beyond it, with a colour that shows if it is taken for known.
    let with_hidden = |hidden: u8| {
        let sample = |i: usize| {
            let (x, y, c) = (i / 4 % 96, i / 4 / 96, i % 4);
            match (y < 33, c) {
                (true, 3) => 255,
                (true, c) => opaque.sample(x, y, c) as u8,
                (false, 3) => 0,
                (false, _) => hidden,
            }
        };
        Photo::from_u8(96, 80, 4, (0..4 * 96 * 80).map(sample).collect()).unwrap()
    };
    let (black, white) = (with_hidden(0), with_hidden(255));
    let from_black = inpaint(&black, &mask, &embedded()).unwrap();
    let from_white = inpaint(&white, &mask, &embedded()).unwrap();
    let visible = Mask::from_fn(96, 80, |x, y| mask.is_set(x, y) && y < 33);
    let transparent = Mask::from_fn(96, 80, |_, y| y >= 33);
    assert!(filled(from_black.sample(0), &visible) != filled(&black, &visible), "nothing is filled");
    assert!(filled(from_black.sample(0), &visible) == filled(from_white.sample(0), &visible), "hidden colours show");
    assert!(filled(from_black.sample(0), &transparent) == filled(&black, &transparent));
    assert!(filled(from_white.sample(0), &transparent) == filled(&white, &transparent));
    assert_known_is_untouched(&from_black, &black, &mask);
}

/// Fault 59.
#[test]
fn options_out_of_range_are_refused_with_what_is_allowed() {
    let (model, photo, mask) = (gaussian(), crop(), small_hole());
    let message = |options: &RestoreOptions<'_>| {
        let message = inpaint(&photo, &mask, options).unwrap_err().to_string();
        assert_eq!(plan_inpaint(&photo, &mask, options).unwrap_err().to_string(), message);
        message
    };
    let other = inpaint(&photo, &hole(80, 96, 1, 1, 2), &analytic(&model)).unwrap_err().to_string();
    assert_eq!(other, "mask is 80x96, expected the size of the photo, 96x80");
    let base = || analytic(&model);
    assert_eq!(message(&RestoreOptions { samples: 0, ..base() }), "samples is 0, expected at least 1");
    assert_eq!(message(&RestoreOptions { steps: Some(0), ..base() }), "steps is 0, expected 1 to 100000");
    assert_eq!(message(&RestoreOptions { tile: Some(8), ..base() }), "tile is 8, expected at least 64 pixels");
    let unknown = message(&RestoreOptions { sampler: "magic".into(), ..base() });
    let known = SAMPLERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    assert_eq!(unknown, format!("unknown sampler `magic`; known: {known}"));
    let settings = |text: &str| {
        message(&RestoreOptions { sampler: "pigdm".into(), settings: toml::from_str(text).unwrap(), ..base() })
    };
    assert_eq!(settings("prior_std = -1.0"), "prior_std is -1, expected 0.001 to 1000");
    assert_eq!(settings("annealing = { rho = 0.0 }"), "rho is 0, expected 0.1 to 100");
    let message = settings("spread = 1");
    assert!(message.contains("unknown field `spread`, expected one of `annealing`, `prior_std`, `scale`"), "{message}");
}

#[test]
fn settings_and_steps_take_the_place_of_the_defaults_one_by_one() {
    let (model, photo, mask) = (gaussian(), crop(), small_hole());
    let settings = toml::from_str("annealing = { sigma_start = 2.0, steps = 9 }").unwrap();
    let options = RestoreOptions { settings, steps: None, samples: 2, ..analytic(&model) };
    let plan = plan_inpaint(&photo, &mask, &options).unwrap();
    assert_eq!((plan.sampler, plan.steps, plan.evaluations), ("tmpd", 9, 18));
    let plan = plan_inpaint(&photo, &mask, &RestoreOptions { steps: Some(4), ..options.clone() }).unwrap();
    assert_eq!((plan.steps, plan.evaluations), (4, 8));
    let plan = plan_inpaint(&photo, &mask, &RestoreOptions { sampler: "ddnm".into(), ..options }).unwrap();
    assert_eq!((plan.sampler, plan.steps), ("ddnm", 9));
}

#[test]
fn a_deadline_takes_levels_away_or_is_an_error_that_says_how_much_is_missing() {
    let (model, photo, mask) = (gaussian(), crop(), small_hole());
    let base = RestoreOptions { samples: 2, ..analytic(&model) };
    let free = plan_inpaint(&photo, &mask, &base).unwrap();
    let far = Instant::now() + Duration::from_secs(3600);
    let plenty = plan_inpaint(&photo, &mask, &RestoreOptions { deadline: Some(far), ..base.clone() }).unwrap();
    assert_eq!((plenty.steps, plenty.evaluations), (free.steps, free.evaluations));
    let past = RestoreOptions { deadline: Some(Instant::now()), ..base.clone() };
    match plan_inpaint(&photo, &mask, &past).unwrap_err() {
        Error::Time { limit, .. } => assert_eq!(limit, "0.0 s"),
        other => panic!("{other}"),
    }
    // So many levels that not all of them can be done in a second.
    let many = RestoreOptions { steps: Some(100_000), deadline: Some(Instant::now() + Duration::from_secs(1)), ..base };
    let fewer = plan_inpaint(&photo, &mask, &many).unwrap();
    assert!((1..100_000).contains(&fewer.steps), "{}", fewer.steps);
    assert_eq!(fewer.total_steps, 2 * fewer.steps);
}

/// Fault 65.
#[test]
fn memory_makes_windows_smaller_and_is_an_error_where_the_smallest_do_not_fit() {
    let (model, photo) = (gaussian(), chelsea(0, 0, 240, 240));
    let mask = Mask::from_fn(240, 240, |x, y| (x / 8 + y / 8).is_multiple_of(3));
    let free = plan_inpaint(&photo, &mask, &analytic(&model)).unwrap();
    assert_eq!((free.regions, free.windows), (1, 1));
    let limited = RestoreOptions { memory: Some(free.memory - 1), ..analytic(&model) };
    let plan = plan_inpaint(&photo, &mask, &limited).unwrap();
    assert!(plan.windows > 1 && plan.memory < free.memory, "{plan:?}");
    let result = inpaint(&photo, &mask, &limited).unwrap();
    assert_known_is_untouched(&result, &photo, &mask);
    for (samples, advice) in [(1, "allow more with --memory"), (2, "draw fewer samples, or allow more with --memory")] {
        let options = RestoreOptions { memory: Some(3 << 20), samples, ..analytic(&model) };
        match plan_inpaint(&photo, &mask, &options).unwrap_err() {
            Error::Memory { needs, limit, advice: given } => {
                assert_eq!((limit, given.as_str()), (3 << 20, advice));
                assert!((80 << 20..plan.memory + (8 << 20)).contains(&needs), "{needs}");
            }
            other => panic!("{other}"),
        }
    }
}

/// Fault 14.
#[test]
fn a_photo_of_120_megapixels_is_planned_in_windows_or_refused_before_work() {
    let model = gaussian();
    let photo = Photo::from_u8(12_000, 10_000, 1, vec![128; 120_000_000]).unwrap();
    let mask = Mask::from_fn(12_000, 10_000, |x, y| (4000..5500).contains(&x) && (7000..7040).contains(&y));
    let plan = plan_inpaint(&photo, &mask, &analytic(&model)).unwrap();
    assert!(plan.windows > 1, "{plan:?}");
    let options = RestoreOptions { memory: Some(64 << 20), ..analytic(&model) };
    match plan_inpaint(&photo, &mask, &options).unwrap_err() {
        Error::Memory { needs, limit, .. } => assert!(limit == 64 << 20 && needs > limit, "{needs} {limit}"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_limit_of_memory_gives_one_and_many_samples_the_same_windows() {
    let (model, photo) = (gaussian(), chelsea(0, 0, 240, 240));
    let mask = Mask::from_fn(240, 240, |x, y| (x / 8 + y / 8).is_multiple_of(3));
    let with = |samples: usize, memory: u64| {
        plan_inpaint(&photo, &mask, &RestoreOptions { samples, memory: Some(memory), ..analytic(&model) })
    };
    let one = plan_inpaint(&photo, &mask, &analytic(&model)).unwrap();
    assert_eq!(with(1, one.memory).unwrap().windows, 1);
    // Smaller windows would make room for the samples, but they would be other samples.
    let Error::Memory { advice, .. } = with(8, one.memory).unwrap_err() else { panic!("fits") };
    assert_eq!(advice, "--tile 64 makes it fit; draw fewer samples, or allow more with --memory");
    assert_eq!(with(8, one.memory + (64 << 20)).unwrap().windows, 1);
}

#[test]
fn nothing_to_fill_is_the_photo_and_nothing_known_is_a_draw_from_the_prior() {
    let (model, photo) = (gaussian(), crop());
    let none = inpaint(&photo, &Mask::from_fn(96, 80, |_, _| false), &analytic(&model)).unwrap();
    assert!(pixels(none.sample(0)) == pixels(&photo));
    assert_eq!((none.plan.regions, none.plan.windows, none.plan.deepest), (0, 0, 0.0));
    assert_eq!(none.plan.evaluations, 0);
    let mask = Mask::from_fn(96, 80, |_, _| true);
    let options = RestoreOptions { steps: Some(60), ..analytic(&model) };
    let all = inpaint(&photo, &mask, &options).unwrap();
    let levels = pixels(all.sample(0));
    let mean = levels.iter().map(|&level| f64::from(level)).sum::<f64>() / levels.len() as f64;
    // Mean 0.2 is level 153; the mean of 23,040 values of a spread of at most 0.3, 38 levels, is known to a quarter.
    assert!((mean - 153.0).abs() < 1.0, "{mean}");
    let warning = "nothing of the photo is known; this prior knows textures and edges, not scenes: expect a smooth or \
                   invented fill";
    assert_eq!(all.plan.warnings, [warning]);
}

/// Fault 55, where the result is finite.
#[test]
fn deep_holes_and_saturated_samples_are_said() {
    let photo = crop();
    let (deep, shallow) = (hole(96, 80, 20, 20, 41), hole(96, 80, 20, 20, 31));
    let white = Model::open("gaussian:mean=3,std=0.1", &ModelOptions::default()).unwrap();
    let result = inpaint(&photo, &deep, &analytic(&white)).unwrap();
    let warning = "a hole reaches 21 pixels away from what is known; this prior knows textures and edges, not scenes: \
                   expect a smooth or invented fill";
    assert_eq!((result.plan.deepest, result.plan.warnings.as_slice()), (21.0, &[warning.to_owned()][..]));
    let warning = "1 of 1 samples are black or white in more than half of the filled pixels, 0 % of what surrounds them is: \
                   look at the picture before you use it";
    assert_eq!(result.warnings(&photo, &deep), [warning]);
    let grey = Model::open("gaussian:mean=0.2,std=0.0001", &ModelOptions::default()).unwrap();
    let options = RestoreOptions { sampler: "ddnm".into(), ..analytic(&grey) };
    let warning = "1 of 1 samples have one colour in all filled pixels, what surrounds them has more: look at the \
                   picture before you use it";
    assert_eq!(inpaint(&photo, &shallow, &options).unwrap().warnings(&photo, &shallow), [warning]);
    let flat = Photo::from_u8(96, 80, 3, vec![153; 96 * 80 * 3]).unwrap();
    assert!(inpaint(&flat, &shallow, &options).unwrap().warnings(&flat, &shallow).is_empty());
    let model = gaussian();
    let result = inpaint(&photo, &shallow, &analytic(&model)).unwrap();
    assert!(result.plan.warnings.is_empty() && result.warnings(&photo, &shallow).is_empty());
}

#[test]
fn progress_counts_every_step_of_every_sample_and_its_error_stops_the_run() {
    let (model, photo) = (gaussian(), chelsea(100, 60, 200, 64));
    let mask = hole(200, 64, 20, 20, 6).union(&hole(200, 64, 170, 30, 6));
    let options = RestoreOptions { samples: 2, context: Some(16), ..analytic(&model) };
    let mut seen = Vec::new();
    let mut watch = |progress: Progress| {
        seen.push((progress.done, progress.total, progress.sample));
        Ok(())
    };
    let result = inpaint_observed(&photo, &mask, &options, &mut watch).unwrap();
    assert_eq!(result.plan.regions, 2);
    let expected: Vec<_> = (0..12).map(|i| (i + 1, 12, i / 3 % 2)).collect();
    assert_eq!(seen, expected);
    let mut calls = 0;
    let mut stop = |_: Progress| {
        calls += 1;
        if calls == 2 { Err(Error::Interrupted) } else { Ok(()) }
    };
    let error = inpaint_observed(&photo, &mask, &options, &mut stop).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!(calls, 2);
}

// Not a benchmark: a fill that knows nothing of the picture has to lose clearly, or something is broken.
#[test]
fn thin_strokes_come_back_much_better_than_the_mean_colour() {
    let photo = crop();
    let mask = Mask::from_fn(96, 80, |x, y| (x + y / 3) % 16 < 2 && y % 20 > 4 || y % 20 == 10 && x % 32 > 8);
    assert!((500..1500).contains(&mask.count()), "{}", mask.count());
    let result = inpaint(&photo, &mask, &RestoreOptions { steps: Some(5), ..embedded() }).unwrap();
    assert_known_is_untouched(&result, &photo, &mask);
    let truth = filled(&photo, &mask);
    let psnr = |values: &[f64]| {
        let squares: f64 = truth.iter().zip(values).map(|(&t, v)| (f64::from(t) - v).powi(2)).sum();
        10.0 * (255.0_f64.powi(2) * truth.len() as f64 / squares).log10()
    };
    let known = filled(&photo, &mask.clone().invert());
    let mean = |channel: usize| {
        let values: Vec<f64> = known.iter().skip(channel).step_by(3).map(|&v| v.into()).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let flat: Vec<f64> = [mean(0), mean(1), mean(2)].into_iter().cycle().take(truth.len()).collect();
    let restored: Vec<f64> = filled(result.sample(0), &mask).into_iter().map(f64::from).collect();
    let (flat, restored) = (psnr(&flat), psnr(&restored));
    assert!(restored > flat + 3.0, "{restored:.2} dB restored, {flat:.2} dB in the mean colour");
}
