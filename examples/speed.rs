//! scratch
use std::time::Instant;
use tweedie_kernels::{FusedNetwork, InstructionSet};
fn load(path: &str) -> std::collections::HashMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path).unwrap();
    let st = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    st.iter().map(|(n, v)| {
        let data = match v.dtype() {
            safetensors::Dtype::BF16 => v.data().chunks_exact(2).map(|c| half::bf16::from_le_bytes([c[0], c[1]]).to_f32()).collect(),
            _ => v.data().chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect(),
        };
        (n.to_string(), (v.shape().to_vec(), data))
    }).collect()
}
fn rel(a: &[f32], b: &[f32]) -> f64 {
    let d: f64 = a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    let n: f64 = b.iter().map(|y| f64::from(*y).powi(2)).sum();
    (d / n).sqrt()
}
fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let config: tweedie::models::unet2d::UNet2dConfig = serde_json::from_slice(&std::fs::read(format!("{dir}/unet/config.json")).unwrap()).unwrap();
    let network = config.network().unwrap();
    println!("{} parameters, stride {}, {} GFLOP at 256", network.parameters().iter().map(|p| p.elements()).sum::<usize>(), network.stride(), network.operations(256, 256) / 1e9);
    let weights = load(&format!("{dir}/unet/diffusion_pytorch_model.safetensors"));
    let io = load(&format!("{dir}/io.safetensors"));
    for isa in [InstructionSet::detect()] {
        let t = Instant::now();
        let net = FusedNetwork::new(&network, isa, |n| weights.get(n).map(|w| w.1.clone())).unwrap();
        println!("{isa}: packed in {:?}", t.elapsed());
        for shape in ["square", "wide"] {
            for sigma in ["0.02", "0.1", "0.4", "1", "4", "20"] {
                let get = |n: &str| &io[&format!("{shape}.sigma{sigma}.{n}")];
                let s: f64 = sigma.parse().unwrap();
                let (xs, x) = get("x");
                let cin = 1.0 / (s * s + 0.25).sqrt();
                let cout = s * 0.5 * cin; let cskip = 0.25 / (s * s + 0.25);
                let sh = [xs[0], xs[1], xs[2], xs[3]];
                let (f, tape) = net.forward_with_tape(x, sh, &[(s.ln() / 4.0) as f32], cin as f32).unwrap();
                let v = &get("v").1;
                let vo: Vec<f32> = v.iter().map(|a| a * cout as f32).collect();
                let g: Vec<f32> = net.pullback(&tape, &vo, cin as f32).unwrap().iter().zip(v).map(|(a, b)| a + b * cskip as f32).collect();
                println!("{shape} {sigma}: F {:.2e} grad {:.2e}", rel(&f, &get("F").1), rel(&g, &get("grad_x").1));
            }
        }
        for n in [64usize, 256, 512] {
            let x = vec![0.1_f32; 3 * n * n];
            let time = |f: &dyn Fn()| { f(); let mut ts: Vec<f64> = (0..5).map(|_| { let t = Instant::now(); f(); t.elapsed().as_secs_f64() }).collect(); ts.sort_by(f64::total_cmp); ts[2] };
            let t = time(&|| { net.forward(&x, [1, 3, n, n], &[0.0], 1.0).unwrap(); });
            let p = time(&|| { let (f, tape) = net.forward_with_tape(&x, [1, 3, n, n], &[0.0], 1.0).unwrap(); net.pullback(&tape, &f, 1.0).unwrap(); });
            let ops = network.operations(n, n);
            println!("{n}: forward {:.1} ms {:.0} GFLOP/s; pullback {:.1} ms", t * 1e3, ops / t / 1e9, p * 1e3);
        }
    }
}
