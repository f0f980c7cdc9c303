//! Packs a diffusers folder into a native file.
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let c = tweedie::models::Checkpoint::open(std::path::Path::new(&args[1])).unwrap();
    let test = std::fs::read_to_string(&args[3]).unwrap();
    let bytes = c.to_native(&[
        ("name", "photo-prior-v0"),
        ("licence", "CC-BY-SA-4.0; training photos: BSD-2-Clause, CC0-1.0, CC-BY-4.0, CC-BY-SA-4.0, GPL-2.0-or-later, LGPL-2.1-or-later, see the model card"),
        ("provenance", "trained from scratch on 72 photographs of Debian packages (enlightenment-data, lomiri-wallpapers, mate-backgrounds, plasma-workspace-wallpapers, lxqt-themes, stellarium-data); see models/photo-prior-v0.md"),
        ("self_test", test.trim()),
    ]).unwrap();
    std::fs::write(&args[2], bytes).unwrap();
}
