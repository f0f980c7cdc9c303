use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use candle_core::{DType, Tensor};
use tweedie_operators::{BuildOperator, Entry, ForwardOperator, OPERATORS, Result, Site, find};

use crate::{SIZES, inner, norm, random, relative_error, site, values};

/// Rounding and the size that agreement is asked for.
const TYPES: [(DType, f64); 2] = [(DType::F32, 1e-6), (DType::F64, 1e-14)];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/own")
}

fn build(name: &str, settings: &str, site: Site<'_>) -> Result<Box<dyn ForwardOperator>> {
    find(site.operators, name)?.create(settings.parse().unwrap(), site)
}

fn refusal(name: &str, settings: &str, site: Site<'_>) -> String {
    build(name, settings, site).unwrap_err().to_string()
}

/// Operators for the same images agree forwards and backwards.
fn assert_agree(got: &dyn ForwardOperator, expected: &dyn ForwardOperator, x: &Tensor, tolerance: f64) {
    let y = expected.forward(x).unwrap();
    let error = relative_error(&got.forward(x).unwrap(), &y);
    assert!(error < tolerance, "{got:?} forward: {error:e}");
    let v = random(y.dims(), 9, y.dtype());
    let error = relative_error(&got.vjp(x, &v).unwrap(), &expected.vjp(x, &v).unwrap());
    assert!(error < tolerance, "{got:?} backward: {error:e}");
}

/// The mean of 2x2 blocks of one channel in Matrix Market's format.
pub(crate) fn block_mean_file(height: usize, width: usize) -> tempfile::NamedTempFile {
    let (rows, columns) = (height / 2, width / 2);
    let mut text = format!("%%MatrixMarket matrix coordinate real general\n{} {}", rows * columns, height * width);
    text += &format!(" {}\n", rows * columns * 4);
    for pixel in 0..rows * columns {
        for corner in 0..4 {
            let (y, x) = (pixel / columns * 2 + corner / 2, pixel % columns * 2 + corner % 2);
            text += &format!("{} {} 0.25\n", pixel + 1, y * width + x + 1);
        }
    }
    let file = tempfile::Builder::new().suffix(".mtx").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

mod compose {
    use super::*;

    const THREE: &str = "operators = [{ name = 'inpaint_box', size = 2 }, { name = 'downsample_box', factor = 2 }, \
                         { name = 'grayscale' }]";

    #[test]
    fn the_first_operator_is_applied_first() {
        let here = site((3, 6, 8), DType::F64);
        let x = random(&[2, 3, 6, 8], 1, DType::F64);
        let composed = build("compose", THREE, here).unwrap();
        let masked = build("inpaint_box", "size = 2", here).unwrap().forward(&x).unwrap();
        let small = build("downsample_box", "factor = 2", here).unwrap().forward(&masked).unwrap();
        let grey = build("grayscale", "", site((3, 3, 4), DType::F64)).unwrap().forward(&small).unwrap();
        assert_eq!(values(&composed.forward(&x).unwrap()), values(&grey));
        assert_eq!(values(&composed.measure(&x).unwrap()), values(&grey));
    }

    #[test]
    fn the_image_of_a_composition_is_found_from_its_end() {
        let entry = find(OPERATORS, "compose").unwrap();
        let shape = |y: &[usize]| entry.image_shape(&THREE.parse().unwrap(), y, site((0, 0, 0), DType::F32));
        assert_eq!(shape(&[1, 3, 4]).unwrap(), (3, 6, 8));
        let message = shape(&[3, 3, 4]).unwrap_err().to_string();
        assert_eq!(message, "compose: operator 3: grayscale: measurement is [3, 3, 4], expected [1, H, W]");
    }

    #[test]
    fn singular_values_of_one_operator_are_kept_and_of_several_not_claimed() {
        let here = site((3, 6, 8), DType::F32);
        let one = build("compose", "operators = [{ name = 'grayscale' }]", here).unwrap();
        assert!(one.as_linear().unwrap().as_spectral().is_some());
        let three = build("compose", THREE, here).unwrap();
        assert!(three.as_linear().unwrap().as_spectral().is_none());
    }

    #[test]
    fn errors_say_which_operator_they_are_from() {
        let here = site((3, 6, 8), DType::F32);
        assert_eq!(refusal("compose", "operators = []", here), "compose: operators is empty, expected at least 1");
        let message =
            refusal("compose", "operators = [{ name = 'identity' }, { name = 'inpaint_box', size = 7 }]", here);
        assert_eq!(message, "compose: operator 2: inpaint_box: size is 7, expected 1 to 6 for an image of 8x6");
        let message = refusal("compose", "operators = [{ name = 'identity' }, { name = 'blurr' }]", here);
        assert!(message.starts_with("compose: operator 2: unknown name `blurr`; known: identity, "), "{message}");
        let message = refusal("compose", "operators = [{ name = 'identity', size = 1 }]", here);
        assert!(message.starts_with("compose: operator 1: identity: unknown field `size`"), "{message}");
        let message = refusal("compose", "operators = [{ size = 1 }]", here);
        assert_eq!(message, "compose: operator 1: name: missing, expected the name of an operator");
        let message = refusal("compose", "operators = [{ name = 3 }]", here);
        assert_eq!(message, "compose: operator 1: name: got 3, expected the name of an operator");
        let stack = "{ name = 'stack', operators = [{ name = 'identity' }] }";
        let message = refusal("compose", &format!("operators = [{stack}, {{ name = 'grayscale' }}]"), here);
        assert_eq!(message, "compose: operator 1: its measurement is [144], expected [C, H, W] for operator 2");
        let deep = format!("operators = [{{ name = 'scale', factor = 0, operator = {stack} }}]");
        let message = refusal("compose", &deep, here);
        assert_eq!(message, "compose: operator 1: scale: factor is 0, expected a finite number other than 0");
    }
}

/// `x³`, known by `forward` alone.
#[derive(Debug)]
struct Cube;

impl ForwardOperator for Cube {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok((x.sqr()? * x)?)
    }

    fn measure(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.forward(x)?.round()?)
    }
}

const CUBE: Entry<BuildOperator> = Entry {
    name: "cube",
    about: "The third power of each pixel",
    fields: &[],
    example: "",
    build: BuildOperator::same_shape(|_, _| Ok(Box::new(Cube))),
};

#[test]
fn operators_of_a_user_work_inside_others_by_the_chain_rule() {
    let mut list = OPERATORS.to_vec();
    list.push(CUBE);
    let here = Site { operators: &list, ..site((3, 6, 8), DType::F64) };
    let compose = "operators = [{ name = 'scale', factor = 0.5 }, { name = 'cube' }, { name = 'downsample_box', \
                   factor = 2 }, { name = 'cube' }, { name = 'scale', factor = -3 }]";
    let stack = format!("operators = [{{ name = 'compose', {compose} }}, {{ name = 'grayscale' }}]");
    let scale = "factor = 2\noperator = { name = 'cube' }";
    for (name, settings) in [("compose", compose), ("stack", &stack), ("scale", scale)] {
        let operator = build(name, settings, here).unwrap();
        assert!(operator.as_linear().is_none(), "{name}");
        let x = random(&[2, 3, 6, 8], 1, DType::F64);
        let (y, pullback) = tweedie_operators::pullback(&x, |x| operator.forward(x)).unwrap();
        let v = random(y.dims(), 2, DType::F64);
        let error = relative_error(&operator.vjp(&x, &v).unwrap(), &pullback.apply(&v).unwrap());
        assert!(error < 1e-14, "{name}: {error:e}");
    }
    // −3 (round((mean of round((x/2)³))³)) by hand: a constant image of 3 has round(3.375) = 3, and 3³ = 27.
    let threes = (Tensor::ones((1, 3, 6, 8), DType::F64, here.device).unwrap() * 3.0).unwrap();
    let recorded = build("compose", compose, here).unwrap().measure(&threes).unwrap();
    assert!(values(&recorded).iter().all(|&y| y == -81.0));
    assert!(build("compose", "operators = [{ name = 'cube' }]", site((3, 6, 8), DType::F64)).is_err());
}

#[test]
fn a_stack_is_its_measurements_one_behind_the_other() {
    let here = site((3, 6, 8), DType::F64);
    let x = random(&[2, 3, 6, 8], 1, DType::F64);
    let settings = "operators = [{ name = 'downsample_box', factor = 2 }, { name = 'grayscale' }]";
    let stack = build("stack", settings, here).unwrap();
    let y = stack.forward(&x).unwrap();
    assert_eq!(y.dims(), [2, 3 * 3 * 4 + 6 * 8]);
    let small = build("downsample_box", "factor = 2", here).unwrap().forward(&x).unwrap();
    let grey = build("grayscale", "", here).unwrap().forward(&x).unwrap();
    for row in 0..2 {
        let of = |x: &Tensor| values(&x.get(row).unwrap());
        assert_eq!(of(&y), [of(&small), of(&grey)].concat());
    }
    let message = stack.forward(&random(&[1, 3, 8, 8], 1, DType::F64)).unwrap_err().to_string();
    assert_eq!(message, "image for downsample_box has shape [1, 3, 8, 8], expected [_, _, 6, 8]");
    let message = stack.vjp(&x, &small).unwrap_err().to_string();
    assert_eq!(message, "measurement of stack has shape [2, 3, 3, 4], expected [_, 84]");
    let message = refusal("stack", "operators = [{ name = 'grayscale' }, { name = 'grayscale', w = 1 }]", here);
    assert!(message.starts_with("stack: operator 2: grayscale: unknown field `w`"), "{message}");
    assert_eq!(refusal("stack", "operators = []", here), "stack: operators is empty, expected at least 1");
    let entry = find(OPERATORS, "stack").unwrap();
    let message =
        entry.image_shape(&settings.parse().unwrap(), &[84], site((0, 0, 0), DType::F32)).unwrap_err().to_string();
    assert_eq!(message, "stack: a measurement of [84] does not tell the shape of its image, which must be given");
}

#[test]
fn scale_is_the_identity_unless_told_otherwise() {
    let here = site((3, 6, 8), DType::F64);
    let x = random(&[1, 3, 6, 8], 1, DType::F64);
    let y = build("scale", "factor = -2", here).unwrap().forward(&x).unwrap();
    assert_eq!(values(&y), values(&x).iter().map(|x| -2.0 * x).collect::<Vec<_>>());
    let message = refusal("scale", "factor = inf", here);
    assert_eq!(message, "scale: factor is inf, expected a finite number other than 0");
    let message = refusal("scale", "factor = 1\noperator = { name = 'downsample_box', factor = 9 }", here);
    assert_eq!(message, "scale: operator: downsample_box: factor is 9, expected 1 to 6 for an image of 8x6");
    let entry = find(OPERATORS, "scale").unwrap();
    let table = "factor = 1\noperator = { name = 'downsample_box', factor = 2 }".parse().unwrap();
    assert_eq!(entry.image_shape(&table, &[3, 3, 4], site((0, 0, 0), DType::F32)).unwrap(), (3, 6, 8));
}

mod matrix {
    use super::*;

    /// A file of this content in a folder of its own, which is the site's.
    fn with_file<T>(name: &str, content: &[u8], then: impl FnOnce(Site<'_>) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        then(Site { folder: folder.path(), ..site((1, 2, 2), DType::F64) })
    }

    /// The refusal of a Matrix Market file, without the name of the folder.
    fn refused(content: &str) -> String {
        with_file("a.mtx", content.as_bytes(), |site| {
            let message = refusal("matrix", "file = 'a.mtx'", site);
            let (_, reason) = message.split_once("a.mtx: ").unwrap_or_else(|| panic!("{message}"));
            reason.to_owned()
        })
    }

    fn dense(content: &str) -> Vec<Vec<f64>> {
        with_file("a.mtx", content.as_bytes(), |site| {
            let operator = build("matrix", "file = 'a.mtx'", site).unwrap();
            let columns = (0..4).map(|pixel| {
                let unit: Vec<f64> = (0..4).map(|other| f64::from(other == pixel)).collect();
                let unit = Tensor::from_vec(unit, (1, 1, 2, 2), site.device).unwrap();
                values(&operator.forward(&unit).unwrap())
            });
            columns.collect()
        })
    }

    #[test]
    fn files_of_scipy_agree_with_the_mean_of_blocks() {
        for (dtype, tolerance) in TYPES {
            let here = site((3, 7, 6), dtype);
            let x = random(&[2, 3, 7, 6], 1, dtype);
            let built_in = build("downsample_box", "factor = 2", here).unwrap();
            let all = "block_mean_all.npz";
            for file in ["block_mean.mtx", "block_mean_csr.npz", "block_mean_csc.npz", "block_mean_coo.npz", all] {
                let settings = format!("file = '{file}'\nmeasurement = [3, 3, 3]\nimage = [3, 7, 6]");
                let folder = data();
                let own = build("matrix", &settings, Site { folder: &folder, ..here }).unwrap();
                assert_agree(&*own, &*built_in, &x, tolerance);
                let flat = build("matrix", &format!("file = '{file}'"), Site { folder: &folder, ..here }).unwrap();
                let expected: &[usize] = if file == all { &[2, 27] } else { &[2, 3, 9] };
                assert_eq!(flat.forward(&x).unwrap().dims(), expected, "{file}");
            }
        }
    }

    #[test]
    fn matrix_market_is_read_as_it_is_defined() {
        // Rows of the answer are columns of the matrix.
        let general =
            "%%MatrixMarket MATRIX coordinate Real general\n% a comment\n\n2 4 3\n1 1 2.5\n  2 4   -1e0 \n1 2 3\n";
        assert_eq!(dense(general), [[2.5, 0.0], [3.0, 0.0], [0.0, 0.0], [0.0, -1.0]]);
        let pattern = "%%MatrixMarket matrix coordinate pattern general\r\n1 4 2\r\n1 2\r\n1 4\r\n";
        assert_eq!(dense(pattern), [[0.0], [1.0], [0.0], [1.0]]);
        let twice = "%%MatrixMarket matrix coordinate integer general\n1 4 2\n1 2 3\n1 2 4\n";
        assert_eq!(dense(twice), [[0.0], [7.0], [0.0], [0.0]], "equal positions add up");
        let symmetric = "%%MatrixMarket matrix coordinate integer symmetric\n4 4 3\n1 1 1\n3 1 5\n4 4 -2\n";
        let expected = [[1., 0., 5., 0.], [0., 0., 0., 0.], [5., 0., 0., 0.], [0., 0., 0., -2.]];
        assert_eq!(dense(symmetric), expected);
    }

    #[test]
    fn damaged_files_of_matrix_market_are_refused_with_the_line() {
        let banner = "%%MatrixMarket matrix coordinate real general\n";
        let real = |rest: &str| refused(&format!("{banner}{rest}"));
        assert_eq!(refused(""), "not a Matrix Market file: its first line is no `%%MatrixMarket matrix ..`");
        let array = refused("%%MatrixMarket matrix array real general\n");
        assert_eq!(array, "layout is `array`, expected `coordinate`");
        let complex = refused("%%MatrixMarket matrix coordinate complex general\n");
        assert_eq!(complex, "field is `complex`, expected `real`, `integer` or `pattern`");
        let skew = refused("%%MatrixMarket matrix coordinate real skew-symmetric\n");
        assert_eq!(skew, "symmetry is `skew-symmetric`, expected `general` or `symmetric`");
        assert_eq!(real(""), "truncated: there is no line `rows columns entries`");
        assert_eq!(real("2 4\n"), "line 2 is `2 4`, expected `rows columns entries`");
        assert_eq!(real("-2 4 1\n"), "line 2 is `-2 4 1`, expected `rows columns entries`");
        assert_eq!(real("0 4 0\n"), "matrix is 0x4, expected sides of 1 to 268435456");
        let vast = "99999999999999 4 1\n";
        assert_eq!(real(vast), "matrix is 99999999999999x4, expected sides of 1 to 268435456");
        let many = "2 4 99999999999999\n";
        assert_eq!(real(many), "matrix has 99999999999999 entries, expected at most 1073741824");
        let promised = "2 4 1000000000\n1 1 1\n";
        assert_eq!(real(promised), "truncated: 1 entries, expected the 1000000000 of the header");
        assert_eq!(real("2 4 1\n1 1 1\n2 2 1\n"), "line 4 holds an entry beyond the 1 of the header");
        assert_eq!(real("2 4 1\n3 1 1\n"), "line 3 is in row 3, column 1 of a 2x4 matrix");
        assert_eq!(real("2 4 1\n0 1 1\n"), "line 3 is in row 0, column 1 of a 2x4 matrix");
        assert_eq!(real("2 4 1\n1 1 nan\n"), "line 3 has the value NaN, expected a finite number");
        assert_eq!(real("2 4 1\n1 1\n"), "line 3 is `1 1`, expected `row column value`");
        assert_eq!(real("2 4 1\n1 1 1 1\n"), "line 3 is `1 1 1 1`, expected `row column value`");
        let upper = "%%MatrixMarket matrix coordinate real symmetric\n4 4 1\n1 2 1\n";
        assert_eq!(refused(upper), "line 3 is above the diagonal of a symmetric matrix, expected the lower half");
        let oblong = "%%MatrixMarket matrix coordinate real symmetric\n2 4 1\n1 1 1\n";
        assert_eq!(refused(oblong), "matrix is symmetric and 2x4, expected a square one");
        let long = format!("{banner}2 4 1\n{}\n", "9".repeat(100));
        assert_eq!(refused(&long), format!("line 3 is `{}`, expected `row column value`", "9".repeat(40)));
    }

    /// An array of NumPy's format, version 1.
    fn npy(descr: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut array = b"\x93NUMPY\x01\x00".to_vec();
        array.extend((header.len() as u16).to_le_bytes());
        array.extend(header.as_bytes());
        array.extend(bytes);
        array
    }

    fn ints(values: &[i64]) -> Vec<u8> {
        npy("<i8", &format!("({},)", values.len()), &values.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<_>>())
    }

    fn floats(values: &[f64]) -> Vec<u8> {
        npy("<f8", &format!("({},)", values.len()), &values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
    }

    /// An archive of a 2x4 matrix in the format csr, with other members where given.
    fn npz(changes: &[(&str, Option<Vec<u8>>)]) -> Vec<u8> {
        use std::io::Write;
        let mut members = std::collections::BTreeMap::from([
            ("format", npy("|S3", "()", b"csr")),
            ("shape", ints(&[2, 4])),
            ("data", floats(&[2.5, -1.0])),
            ("indices", ints(&[0, 3])),
            ("indptr", ints(&[0, 1, 2])),
        ]);
        for (name, content) in changes {
            match content {
                Some(content) => members.insert(name, content.clone()),
                None => members.remove(name),
            };
        }
        let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, content) in members {
            archive.start_file(format!("{name}.npy"), options).unwrap();
            archive.write_all(&content).unwrap();
        }
        archive.finish().unwrap().into_inner()
    }

    fn npz_refused(content: &[u8]) -> String {
        with_file("a.npz", content, |site| {
            let message = refusal("matrix", "file = 'a.npz'", site);
            let (_, reason) = message.split_once("a.npz: ").unwrap_or_else(|| panic!("{message}"));
            reason.to_owned()
        })
    }

    #[test]
    fn arrays_of_either_order_of_bytes_are_read() {
        let big: Vec<u8> = [2.5f32, -1.0].iter().flat_map(|x| x.to_be_bytes()).collect();
        let text: Vec<u8> = "csr".chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
        let changes = [("data", Some(npy(">f4", "(2,)", &big))), ("format", Some(npy("<U3", "()", &text)))];
        with_file("a.npz", &npz(&changes), |site| {
            let operator = build("matrix", "file = 'a.npz'", site).unwrap();
            let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], (1, 1, 2, 2), site.device).unwrap();
            assert_eq!(values(&operator.forward(&x).unwrap()), [2.5, -4.0]);
        });
    }

    #[test]
    fn damaged_files_of_scipy_are_refused() {
        let changed = |name: &str, content: Vec<u8>| npz_refused(&npz(&[(name, Some(content))]));
        assert!(npz_refused(b"no archive").starts_with("not an npz file: "));
        let whole = npz(&[]);
        assert!(npz_refused(&whole[..whole.len() / 2]).starts_with("not an npz file: "));
        assert!(npz_refused(&npz(&[("indptr", None)])).starts_with("indptr: "));
        let message = changed("format", npy("|S3", "()", b"dia"));
        assert_eq!(message, "format is `dia`, expected `csr`, `csc` or `coo`");
        assert_eq!(changed("indices", ints(&[0, 4])), "indices: 4 is out of range, expected 0 to 3");
        assert_eq!(changed("indices", ints(&[0, -1])), "indices: -1 is out of range, expected 0 to 3");
        assert_eq!(changed("indices", ints(&[0])), "indices: 1 elements, expected 2");
        let falling = "indptr is not a rising sequence from 0 to the 2 entries";
        assert_eq!(changed("indptr", ints(&[0, 1, 1])), falling);
        assert_eq!(changed("indptr", ints(&[1, 1, 2])), falling);
        assert_eq!(changed("indptr", ints(&[0, 2])), "indptr: 2 elements, expected 3");
        assert_eq!(changed("indptr", ints(&[0, 3, 2])), "indptr: 3 is out of range, expected 0 to 2");
        assert_eq!(changed("data", floats(&[1.0, f64::NAN])), "entry 2 is NaN, expected a finite number");
        assert_eq!(changed("shape", ints(&[2, 4, 1])), "shape: 3 elements, expected 2");
        assert_eq!(changed("shape", ints(&[0, 4])), "matrix is 0x4, expected sides of 1 to 268435456");
        let vast = changed("shape", ints(&[1 << 40, 4]));
        assert_eq!(vast, "shape: 1099511627776 is out of range, expected 0 to 268435456");
        let message = changed("data", npy("<f8", "(900000000,)", &[0; 16]));
        assert_eq!(message, "data: truncated: 16 bytes, expected 7200000000 for 900000000 elements");
        let message = changed("data", npy("<f8", "(99999999999,)", &[0; 16]));
        assert_eq!(message, "data: 99999999999 elements, expected at most 1073741824");
        assert_eq!(changed("data", npy("<f8", "(1,)", &[0; 16])), "data: longer than the 8 bytes of 1 elements");
        let message = changed("data", npy("<c16", "(1,)", &[0; 16]));
        assert_eq!(message, "data: elements are `<c16`, expected i4, i8, f4 or f8");
        let message = changed("data", npy("<f8", "(1, 2)", &[0; 16]));
        assert_eq!(message, "data: an array of 2 dimensions, expected 1");
        assert_eq!(changed("data", b"\x93NUM".to_vec()), "data: truncated or damaged");
        assert_eq!(changed("data", b"PK  and more".to_vec()), "data: not an array of NumPy, version 1 to 3");
        let nested = npy(&"(".repeat(5000), "(1,)", &[]);
        assert!(changed("data", nested).ends_with("expected at most 4096"));
        assert!(changed("data", npy("é8", "(1,)", &[])).contains("is not that of an array"));
    }

    #[test]
    fn every_cut_of_a_file_is_an_error_and_no_panic() {
        for name in ["block_mean_csr.npz", "block_mean.mtx"] {
            let whole = std::fs::read(data().join(name)).unwrap();
            for end in 0..whole.len() - 1 {
                with_file(name, &whole[..end], |here| {
                    let here = Site { image: (1, 7, 6), ..here };
                    // A text cut within its last value is a shorter value.
                    let last_value = name.ends_with("mtx") && end > whole.len() - 8;
                    let refused = build("matrix", &format!("file = '{name}'"), here).is_err();
                    assert!(refused || last_value, "{name} cut to {end} bytes");
                });
            }
        }
    }

    #[test]
    fn flipped_bytes_are_no_panic() {
        let whole = std::fs::read(data().join("block_mean_csc.npz")).unwrap();
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x55;
            with_file("a.npz", &damaged, |here| {
                let _ = build("matrix", "file = 'a.npz'", Site { image: (1, 7, 6), ..here });
            });
        }
    }

    #[test]
    fn matrices_that_do_not_fit_are_refused() {
        let folder = data();
        let at = |image, settings: &str| {
            let site = Site { folder: &folder, ..site(image, DType::F32) };
            refusal("matrix", &format!("file = 'block_mean.mtx'\n{settings}"), site)
        };
        assert_eq!(
            at((3, 6, 6), ""),
            "matrix: matrix has 42 columns, expected 108 for all channels, or 36 for each of an image of 6x6 with 3 channels"
        );
        assert_eq!(
            at((3, 6, 6), "per_channel = true"),
            "matrix: matrix has 42 columns, expected 36 for each channel of an image of 6x6 with 3 channels"
        );
        let message = at((3, 7, 6), "measurement = [3, 3, 4]");
        assert_eq!(message, "matrix: measurement is [3, 3, 4], expected 27 numbers");
        let message = at((3, 7, 6), "image = [1, 7, 6]");
        assert_eq!(message, "matrix: image is (1, 7, 6), but the image at hand is (3, 7, 6)");
        let here = Site { folder: &folder, ..site((3, 7, 6), DType::F32) };
        let message = refusal("matrix", "file = 'program.py'", here);
        assert!(message.ends_with("program.py: expected a name that ends in .mtx or .npz"), "{message}");
        let message = refusal("matrix", "file = 'missing.npz'", here);
        assert!(message.contains("missing.npz: No such file"), "{message}");
        with_file("a.mtx", b"%%MatrixMarket matrix coordinate real general\n1 4 1\n1 1 1e300\n", |here| {
            let message = refusal("matrix", "file = 'a.mtx'", Site { dtype: DType::F32, ..here });
            assert_eq!(message, "matrix: a value of 1e300 is beyond the range of F32");
            assert!(build("matrix", "file = 'a.mtx'", here).is_ok());
        });
        let operator = build("matrix", "file = 'block_mean.mtx'", here).unwrap();
        let message = operator.forward(&random(&[1, 3, 6, 7], 1, DType::F32)).unwrap_err().to_string();
        assert_eq!(message, "row of the image for matrix has shape [3, 6, 7], expected [3, 7, 6]");
    }

    #[test]
    fn the_image_of_a_matrix_is_what_the_settings_say() {
        let entry = find(OPERATORS, "matrix").unwrap();
        let shape =
            |settings: &str| entry.image_shape(&settings.parse().unwrap(), &[3, 3, 3], site((0, 0, 0), DType::F32));
        assert_eq!(shape("file = 'a.mtx'\nimage = [3, 7, 6]").unwrap(), (3, 7, 6));
        let message = shape("file = 'a.mtx'").unwrap_err().to_string();
        assert_eq!(message, "matrix: image is not given, expected [C, H, W]: a measurement does not tell it");
        let message = shape("file = 'a.mtx'\nimage = [3, 7, 6]\nmeasurement = [9]").unwrap_err().to_string();
        assert_eq!(message, "matrix: measurement is [9], but the one at hand is [3, 3, 3]");
    }

    #[test]
    fn a_matrix_of_more_rows_than_one_thread_takes_agrees_with_its_definition() {
        // Row i holds 1 at pixel i and −0.5 at the next one, over several chunks of rows.
        let (height, width) = (50, 61);
        let size = height * width;
        let here = site((2, height, width), DType::F64);
        let mut entries: Vec<_> = (0..size).map(|i| (i, i, 1.0)).collect();
        entries.extend((0..size - 1).map(|i| (i, i + 1, -0.5)));
        let operator = tweedie_operators::forward::Matrix::new((size, size), &entries, here).unwrap();
        let x = random(&[1, 2, height, width], 1, DType::F64);
        let pixels = values(&x);
        let next = |i: usize| if i % size == size - 1 { 0.0 } else { pixels[i + 1] };
        let expected: Vec<f64> = (0..2 * size).map(|i| pixels[i] - 0.5 * next(i)).collect();
        assert_eq!(values(&operator.forward(&x).unwrap()), expected);
        let y = random(&[1, 2, size], 2, DType::F64);
        let (back, y) = (values(&operator.vjp(&x, &y).unwrap()), values(&y));
        for i in 1..size {
            assert!((back[i] - (y[i] - 0.5 * y[i - 1])).abs() < 1e-15);
        }
    }
}

mod process {
    use super::*;

    /// The Python of this machine: the one the variable names, else `python3`.
    fn python() -> String {
        std::env::var("TWEEDIE_PYTHON").unwrap_or_else(|_| "python3".into())
    }

    /// Leaves a test of programs where there is no Python, and says so; `.ci/run` makes sure that there is one.
    macro_rules! needs_python {
        () => {
            let runs = Command::new(python()).arg("--version").output().is_ok_and(|output| output.status.success());
            if !runs {
                assert!(std::env::var_os("TWEEDIE_PYTHON").is_none(), "TWEEDIE_PYTHON names no Python: {}", python());
                eprintln!("not run: there is no Python here to run a program with");
                return;
            }
        };
    }

    fn example() -> String {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python_operator/measure.py");
        format!("'{}', '{}'", python(), file.display())
    }

    fn program(mode: &str, more: &str, site: Site<'_>) -> Result<Box<dyn ForwardOperator>> {
        let folder = data();
        let settings = format!("command = ['{}', 'program.py', '{mode}']\n{more}", python());
        build("process", &settings, Site { folder: &folder, ..site })
    }

    fn small() -> (Site<'static>, Tensor) {
        (site((1, 2, 3), DType::F64), random(&[2, 1, 2, 3], 1, DType::F64))
    }

    fn failure(mode: &str) -> String {
        let (here, x) = small();
        let message = program(mode, "", here).and_then(|program| program.forward(&x)).unwrap_err().to_string();
        let (_, reason) = message.split_once(&format!("program.py {mode}`: ")).unwrap_or_else(|| panic!("{message}"));
        reason.to_owned()
    }

    #[test]
    fn the_example_agrees_with_the_mean_of_blocks() {
        needs_python!();
        let command = example();
        for (dtype, tolerance) in TYPES {
            for (height, width) in SIZES {
                let here = site((3, height, width), dtype);
                let x = random(&[2, 3, height, width], 1, dtype);
                let own = build("process", &format!("command = [{command}]"), here).unwrap();
                assert_agree(&*own, &*build("downsample_box", "factor = 2", here).unwrap(), &x, tolerance);
                let (y, v) = (own.forward(&x).unwrap(), random(&[2, 3, height / 2, width / 2], 2, dtype));
                assert_eq!((y.dtype(), own.vjp(&x, &v).unwrap().dtype()), (dtype, dtype));
                let error = inner(&y, &v) - inner(&x, &own.as_linear().unwrap().adjoint(&v).unwrap());
                assert!(error.abs() < 10.0 * tolerance * norm(&y) * norm(&v), "adjoint: {error:e}");
                let second = own.forward(&x.narrow(0, 1, 1).unwrap()).unwrap();
                assert_eq!(values(&second), values(&y.narrow(0, 1, 1).unwrap()), "rows are independent");
            }
        }
    }

    #[test]
    fn the_example_of_a_blur_agrees_with_its_matrix() {
        needs_python!();
        let command = example();
        let (height, width) = (6, 5);
        let mut entries = Vec::new();
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            for (down, right) in (0..3).flat_map(|down| (0..3).map(move |right| (down, right))) {
                let from = (y + height + down - 1) % height * width + (x + width + right - 1) % width;
                entries.push((y * width + x, from, 1.0 / 9.0));
            }
        }
        for (dtype, tolerance) in TYPES {
            let here = site((3, height, width), dtype);
            let matrix = tweedie_operators::forward::Matrix::new((30, 30), &entries, here).unwrap();
            let blur = build("process", &format!("command = [{command}, 'blur']"), here).unwrap();
            let x = random(&[2, 3, height, width], 1, dtype);
            let expected = matrix.forward(&x).unwrap().reshape((2, 3, height, width)).unwrap();
            let error = relative_error(&blur.forward(&x).unwrap(), &expected);
            assert!(error < tolerance, "forward: {error:e}");
            let v = random(&[2, 3, height, width], 2, dtype);
            let expected = matrix.vjp(&x, &v.reshape((2, 3, 30)).unwrap()).unwrap();
            let error = relative_error(&blur.vjp(&x, &v).unwrap(), &expected);
            assert!(error < tolerance, "adjoint: {error:e}");
        }
    }

    #[test]
    fn a_program_that_is_not_linear_is_asked_for_its_derivative() {
        needs_python!();
        for (dtype, tolerance) in TYPES {
            let here = site((1, 2, 3), dtype);
            let x = random(&[2, 1, 2, 3], 1, dtype);
            let square = program("square", "timeout = 20", here).unwrap();
            assert!(square.as_linear().is_none());
            let error = relative_error(&square.forward(&x).unwrap(), &x.sqr().unwrap());
            assert!(error < tolerance, "{error:e}");
            let v = random(&[2, 1, 2, 3], 2, dtype);
            let expected = ((&x * &v).unwrap() * 2.0).unwrap();
            let error = relative_error(&square.vjp(&x, &v).unwrap(), &expected);
            assert!(error < tolerance, "{error:e}");
        }
        let (here, x) = small();
        let told = program("square", "linear = true", here).unwrap();
        assert!(told.as_linear().is_some(), "the configuration overrules the program");
        let message = told.forward(&random(&[1, 1, 3, 3], 1, DType::F64)).unwrap_err().to_string();
        assert!(message.ends_with("has shape [1, 1, 3, 3], expected [_, 1, 2, 3]"), "{message}");
        let square = program("square", "", here).unwrap();
        let message = square.vjp(&x, &x.narrow(3, 0, 2).unwrap()).unwrap_err().to_string();
        assert!(message.ends_with("has shape [2, 1, 2, 2], expected [_, 1, 2, 3]"), "{message}");
        let message = square.vjp(&x, &x.narrow(0, 0, 1).unwrap()).unwrap_err().to_string();
        assert!(message.ends_with("has shape [1, 1, 2, 3], expected [2, ..], a row for each image"), "{message}");
        assert_eq!(square.forward(&x.narrow(0, 0, 0).unwrap()).unwrap().dims(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_program_without_derivatives_stops_gradients_with_an_error() {
        needs_python!();
        let (here, x) = small();
        let square = program("square", "", here).unwrap();
        let (_, pullback) = tweedie_operators::pullback(&x, |x| square.forward(x)).unwrap();
        assert!(matches!(
            pullback.apply(&x).unwrap_err(),
            tweedie_operators::Error::NoGradient | tweedie_operators::Error::Tensor(_)
        ));
    }

    #[test]
    fn failures_of_a_program_are_told_with_their_cause() {
        needs_python!();
        let dies = failure("dies");
        let end = "its standard error ends with: first line | no such kernel";
        assert_eq!(dies, format!("request `forward`: the program ended without an answer (exit status: 3); {end}"));
        let prints = failure("prints");
        assert!(prints.contains("begins with \"loading \", expected at most"), "{prints}");
        assert!(prints.ends_with("does the program print to its standard output?"), "{prints}");
        let huge = failure("huge");
        assert!(huge.starts_with("request `forward`: an answer of 9223372036854775808 bytes"), "{huge}");
        let truncated = failure("truncated");
        let expected = "request `forward`: the program ended within an answer, after 9 of 100 bytes";
        assert!(truncated.starts_with(expected), "{truncated}");
        let garbage = failure("garbage");
        assert!(garbage.starts_with("request `forward`: the answer is no file of safetensors: "), "{garbage}");
        assert_eq!(failure("refuses"), "request `forward`: the program says: x is too dark");
        assert_eq!(failure("misnames"), "request `forward`: the answer has no tensor `y`, only [\"z\"]");
        assert_eq!(failure("misshapes"), "request `forward`: y has shape [6], expected [1, 2, 3]");
        assert_eq!(failure("integers"), "request `forward`: y is of type I64, expected F32 or F64");
        assert_eq!(failure("no_shape"), "request `shape`: the answer has no `measurement`");
        assert_eq!(failure("odd_shape"), "request `shape`: measurement is `3 by 4`, expected a list as [3, 8, 8]");
        assert!(failure("vast_shape").contains("expected 1 to 1073741824 numbers"));
        assert!(failure("no_linear").contains("does not say whether it is linear"));
        assert_eq!(failure("odd_linear"), "request `shape`: linear is `perhaps`, expected `true` or `false`");
        assert_eq!(failure("no_ok"), "request `shape`: the metadata of the answer has neither `ok` nor `error`");
        let (here, x) = small();
        let nan = program("nan", "", here).unwrap().forward(&x).unwrap_err();
        assert!(matches!(nan, tweedie_operators::Error::NonFinite { .. }), "{nan}");
        assert!(nan.to_string().starts_with("y of request `forward` to process `"), "{nan}");
    }

    #[test]
    fn a_program_that_refuses_lives_on_and_one_that_failed_stays_stopped() {
        needs_python!();
        let (here, x) = small();
        let refuses = program("refuses", "", here).unwrap();
        for _ in 0..2 {
            assert!(refuses.forward(&x).unwrap_err().to_string().ends_with("the program says: x is too dark"));
        }
        let dies = program("dies", "", here).unwrap();
        assert!(dies.forward(&x).is_err());
        let message = dies.forward(&x).unwrap_err().to_string();
        assert!(message.contains("it was stopped after a failure: the program ended"), "{message}");
    }

    #[test]
    fn a_program_that_does_not_answer_is_stopped_in_time() {
        needs_python!();
        let (here, x) = small();
        let sleeps = program("sleeps", "timeout = 5", here).unwrap();
        let start = Instant::now();
        let message = sleeps.forward(&x).unwrap_err().to_string();
        assert!(message.ends_with("request `forward`: no answer within 5 s"), "{message}");
        assert!(start.elapsed() < Duration::from_secs(30));
        drop(sleeps);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_is_started_once_and_ends_with_its_operator() {
        needs_python!();
        let (here, x) = small();
        let program = program("pid", "", here).unwrap();
        let number = |y: Result<Tensor>| values(&y.unwrap())[0];
        let id = number(program.forward(&x));
        assert_eq!(id, number(program.forward(&x)));
        let folder = format!("/proc/{id}");
        assert!(Path::new(&folder).exists());
        drop(program);
        assert!(!Path::new(&folder).exists());
    }

    #[test]
    fn threads_take_turns() {
        needs_python!();
        let (here, x) = small();
        let square = program("square", "", here).unwrap();
        std::thread::scope(|scope| {
            for factor in 1..5 {
                let (square, x) = (&square, (&x * f64::from(factor)).unwrap());
                scope.spawn(move || {
                    for _ in 0..20 {
                        assert_eq!(values(&square.forward(&x).unwrap()), values(&x.sqr().unwrap()));
                    }
                });
            }
        });
    }

    #[test]
    fn commands_that_do_not_start_are_refused() {
        needs_python!();
        let (here, _) = small();
        assert_eq!(
            refusal("process", "command = []", here),
            "process: command is empty, expected a program and its arguments"
        );
        let message = refusal("process", "command = ['no-such-program-anywhere']", here);
        assert!(message.starts_with("process: command: `no-such-program-anywhere` did not start: "), "{message}");
        for timeout in ["0", "-1", "nan", "inf"] {
            let message = refusal("process", &format!("command = ['true']\ntimeout = {timeout}"), here);
            assert!(message.ends_with("expected a number of seconds above 0"), "{message}");
        }
        let entry = find(OPERATORS, "process").unwrap();
        let table = "command = ['true']".parse().unwrap();
        assert!(entry.image_shape(&table, &[1, 2, 3], site((0, 0, 0), DType::F32)).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn names_of_programs_with_a_folder_start_from_the_folder_of_the_site() {
        needs_python!();
        let (here, x) = small();
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inside")).unwrap();
        let link = folder.path().join("inside/snake");
        let script = format!("#!/bin/sh\nexec '{}' '{}' square\n", python(), data().join("program.py").display());
        std::fs::write(&link, script).unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&link, std::fs::Permissions::from_mode(0o755)).unwrap();
        let here = Site { folder: folder.path(), ..here };
        let square = build("process", "command = ['inside/snake']", here).unwrap();
        assert_eq!(values(&square.forward(&x).unwrap()), values(&x.sqr().unwrap()));
    }
}
