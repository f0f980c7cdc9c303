//! Which files of a repository make a model.

use super::wanted::{WEIGHTS, is_weights};
use std::path::Path;

/// The files to fetch out of those that a repository lists: those of a diffusers folder, or its only file with weights.
/// Weights come last, so that a model whose weights are there is whole.
///
/// # Errors
/// What is lacking, or the names between which the user has to choose.
pub(super) fn choose(listed: &[String]) -> Result<Vec<String>, String> {
    let has = |name: &str| listed.iter().any(|file| file == name);
    for folder in ["unet/", ""] {
        let config = format!("{folder}config.json");
        let weights = if has(&config) { diffusers_weights(listed, folder)? } else { Vec::new() };
        if weights.is_empty() {
            continue;
        }
        let beside = ["model_index.json", "scheduler/scheduler_config.json", "scheduler_config.json", &config];
        let mut files: Vec<String> = beside.into_iter().filter(|name| has(name)).map(str::to_owned).collect();
        files.extend(weights);
        return Ok(files);
    }
    let top = |ending: &&str| -> Vec<&String> {
        let of = |file: &&String| !file.contains('/') && Path::new(file).extension().is_some_and(|e| e == *ending);
        listed.iter().filter(of).collect()
    };
    match WEIGHTS.iter().map(top).find(|found| !found.is_empty()).as_deref() {
        Some([file]) => Ok(vec![(*file).clone()]),
        Some(several) => {
            let names: Vec<&str> = several.iter().map(|file| file.as_str()).collect();
            Err(format!("has several files with weights; --file names one of {}", names.join(", ")))
        }
        None => {
            let deeper: Vec<&str> =
                listed.iter().map(String::as_str).filter(|file| is_weights(Path::new(file))).take(10).collect();
            Err(match deeper.is_empty() {
                true => "has no file with weights".into(),
                false => format!("has no weights where a model has them; --file names one of {}", deeper.join(", ")),
            })
        }
    }
}

/// The weights in a folder of diffusers, of the best ending there is, and the list of their parts; no variants.
///
/// # Errors
/// Which parts there are, if they are pickles: nothing here puts those together.
fn diffusers_weights(listed: &[String], folder: &str) -> Result<Vec<String>, String> {
    const STEM: &str = "diffusion_pytorch_model";
    for ending in ["safetensors", "bin"] {
        let rest = |file: &&String| -> Option<String> {
            Some(file.strip_prefix(folder)?.strip_prefix(STEM)?.strip_suffix(ending)?.to_owned())
        };
        let part = |file: &&String| rest(file).is_some_and(|rest| rest.starts_with('-') && rest.contains("-of-"));
        if let Some(whole) = listed.iter().find(|file| rest(file).is_some_and(|rest| rest == ".")) {
            return Ok(vec![whole.clone()]);
        }
        let parts: Vec<String> = listed.iter().filter(part).cloned().collect();
        if !parts.is_empty() && ending != "safetensors" {
            return Err(format!("has its weights in several pickles, which cannot be opened: {}", parts.join(", ")));
        }
        if !parts.is_empty() {
            let list = format!("{folder}{STEM}.{ending}.index.json");
            return Ok(listed.iter().filter(|file| **file == list).cloned().chain(parts).collect());
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(listed: &[&str]) -> Result<Vec<String>, String> {
        choose(&listed.iter().map(|file| (*file).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_diffusers_folder_is_its_configuration_and_one_form_of_its_weights() {
        let top =
            ["README.md", "config.json", "diffusion_pytorch_model.bin", "model_index.json", "scheduler_config.json"];
        let expected = ["model_index.json", "scheduler_config.json", "config.json", "diffusion_pytorch_model.bin"];
        assert_eq!(chosen(&top).unwrap(), expected);
        let both =
            [&top[..], &["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"]].concat();
        assert_eq!(chosen(&both).unwrap()[3], "diffusion_pytorch_model.safetensors");
        let pipeline = [
            "model_index.json",
            "scheduler/scheduler_config.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "unet/diffusion_pytorch_model.bin",
        ];
        let expected = [0, 1, 2, 5, 3, 4].map(|i| pipeline[i]);
        assert_eq!(chosen(&pipeline).unwrap(), expected);
        let parts = ["diffusion_pytorch_model-00001-of-00002.bin", "diffusion_pytorch_model-00002-of-00002.bin"];
        let pickles = [&["config.json", "diffusion_pytorch_model.bin.index.json"], &parts[..]].concat();
        let expected =
            format!("has its weights in several pickles, which cannot be opened: {}, {}", parts[0], parts[1]);
        assert_eq!(chosen(&pickles).unwrap_err(), expected);
        let whole = [&pickles[..], &["diffusion_pytorch_model.bin"]].concat();
        assert_eq!(chosen(&whole).unwrap()[1], "diffusion_pytorch_model.bin");
    }

    #[test]
    fn a_single_file_is_taken_and_several_are_a_question() {
        assert_eq!(chosen(&["a.safetensors", "a.pt", ".gitattributes"]).unwrap(), ["a.safetensors"]);
        assert_eq!(chosen(&["config.json", "model.pth"]).unwrap(), ["model.pth"]);
        let expected = "has several files with weights; --file names one of a.pt, b.pt";
        assert_eq!(chosen(&["a.pt", "b.pt"]).unwrap_err(), expected);
        assert_eq!(chosen(&["README.md"]).unwrap_err(), "has no file with weights");
        let expected = "has no weights where a model has them; --file names one of x/a.pt";
        assert_eq!(chosen(&["x/a.pt"]).unwrap_err(), expected);
    }
}
