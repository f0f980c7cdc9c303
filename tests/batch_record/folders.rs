//! What is found, what is passed over, and what is refused.

use super::{Place, names, skipped};
use std::path::{Path, PathBuf};
use tweedie::batch::{Selection, Shard, check_output_folder, read_list};

fn selection(inputs: &[PathBuf]) -> Selection {
    Selection { inputs: inputs.to_vec(), ..Selection::default() }
}

fn refusal(place: &Place, selection: &Selection) -> String {
    let text = place.plan_of(selection, Shard::All).unwrap_err().to_string();
    text.replace(&place.0.path().display().to_string(), "@")
}

#[test]
fn a_folder_is_its_photos_in_the_order_of_their_paths() {
    let place = Place::with(&["b.jpg", "a/z.png", "a/b/c.TIFF", "a-b.webp", "Z.gif"]);
    assert_eq!(names(&place.plan()), ["Z.gif", "a-b.webp", "a/b/c.TIFF", "a/z.png", "b.jpg"]);
    let flat = place.plan_of(&selection(&[place.path("in")]), Shard::All).unwrap();
    assert_eq!(names(&flat), ["Z.gif", "a-b.webp", "b.jpg"]);
    assert_eq!(flat.folders, 1, "one folder was not looked into");
    let item = &place.plan().items[3];
    assert_eq!(item.path(), place.path("in/a/z.png"));
    assert_eq!(place.plan().outputs(item).samples, [Path::new("a/z.png")]);
}

#[test]
fn what_is_no_photo_is_counted_by_extension() {
    let place =
        Place::with(&["a.jpg", "notes.txt", "b.TXT", "raw.NEF", "a.jpg.tweedie.toml", ".hidden.jpg", ".trash/x.jpg"]);
    place.write("in/scan", b"\x89PNG\r\n\x1a\n");
    place.write("in/c.dat", b"\xff\xd8\xff\xe0 a JPEG");
    place.write("in/readme", b"P5 is not always a picture");
    // A raw file begins as a TIFF does; it is no second photo beside its JPEG.
    place.write("in/a.cr2", b"II*\0");
    let plan = place.plan();
    assert_eq!(names(&plan), ["a.jpg", "c.dat", "scan"]);
    let others: Vec<_> = plan.others.iter().map(|(extension, count)| (extension.as_str(), *count)).collect();
    assert_eq!(others, [("", 1), ("cr2", 1), ("nef", 1), ("txt", 2)]);
    assert_eq!(plan.hidden, 2);
    assert!(plan.items[0].sidecar().is_some() && plan.items[1].sidecar().is_none());
    let all = Selection { hidden: true, ..place.all() };
    assert_eq!(names(&place.plan_of(&all, Shard::All).unwrap())[..2], [".hidden.jpg", ".trash/x.jpg"]);
}

#[test]
fn a_named_file_is_a_photo_whatever_it_is_called() {
    let place = Place::with(&["notes.txt", "a.jpg"]);
    let plan = place.plan_of(&selection(&[place.path("in/notes.txt"), place.path("in")]), Shard::All).unwrap();
    assert_eq!(names(&plan), ["a.jpg", "notes.txt"]);
    assert_eq!(refusal(&place, &selection(&[place.path("in/b.jpg")])), "@/in/b.jpg: no such file, folder or pattern");
}

#[test]
fn one_file_that_is_named_twice_is_one_photo() {
    let place = Place::with(&["a.jpg", "b.jpg"]);
    let twice = [place.path("in"), place.path("in/../in"), place.path("in/a.jpg"), place.path("in/*.jpg")];
    assert_eq!(names(&place.plan_of(&selection(&twice), Shard::All).unwrap()), ["a.jpg", "b.jpg"]);
}

#[test]
fn a_pattern_mirrors_the_tree_below_its_plain_part() {
    let place = Place::with(&["a.jpg", "b.png", "x/c.jpg", "x/y/d.jpg", "x/y/e.txt"]);
    let of = |pattern: &str| names(&place.plan_of(&selection(&[place.path(pattern)]), Shard::All).unwrap());
    assert_eq!(of("in/*.jpg"), ["a.jpg"]);
    assert_eq!(of("in/**/*.jpg"), ["a.jpg", "x/c.jpg", "x/y/d.jpg"]);
    assert_eq!(of("in/*/*.jpg"), ["x/c.jpg"]);
    assert_eq!(of("in/x/**"), ["c.jpg", "y/d.jpg"]);
    assert_eq!(of("in/[ab].{jpg,png}"), ["a.jpg", "b.png"]);
    assert_eq!(of("in/?.jpg"), ["a.jpg"]);
    let plan = place.plan_of(&selection(&[place.path("in/*.gif")]), Shard::All).unwrap();
    assert!(plan.items.is_empty() && !plan.has_errors());
    assert_eq!(skipped(&plan)["*.gif"], "no photos in it");
    assert!(refusal(&place, &selection(&[place.path("in/[a.jpg")])).starts_with("pattern @/in/[a.jpg: "));
    assert_eq!(refusal(&place, &selection(&[place.path("no/*.jpg")])), "@/no/*.jpg: no such file, folder or pattern");
    place.photo("[a].jpg");
    assert_eq!(of("in/[a].jpg"), ["[a].jpg"], "what exists is no pattern");
}

#[test]
fn a_list_keeps_its_paths() {
    let place = Place::with(&["x/a.jpg", "b.txt"]);
    let base = Some(place.path("in"));
    let listed = |names: &[u8], base: &Option<PathBuf>| Selection {
        listed: read_list(names),
        base: base.clone(),
        ..Selection::default()
    };
    let plan = place.plan_of(&listed(b"./x/a.jpg\nb.txt\n", &base), Shard::All).unwrap();
    assert_eq!(names(&plan), ["b.txt", "x/a.jpg"]);
    assert_eq!(plan.items[1].path(), place.path("in/x/a.jpg"));
    let absolute = format!("{}\0", place.path("in/x/a.jpg").display());
    assert_eq!(names(&place.plan_of(&listed(absolute.as_bytes(), &base), Shard::All).unwrap()), ["x/a.jpg"]);
    let plan = place.plan_of(&listed(absolute.as_bytes(), &None), Shard::All).unwrap();
    assert_eq!(Path::new("/").join(&plan.items[0].relative), place.path("in/x/a.jpg"));
    assert_eq!(plan.items[0].path(), place.path("in/x/a.jpg"));
    let plan = place.plan_of(&listed(b"gone.jpg\nx\nb.txt", &base), Shard::All).unwrap();
    assert_eq!(names(&plan), ["b.txt"]);
    assert!(plan.has_errors(), "a listed photo that is not there was asked for");
    assert_eq!(skipped(&plan)["gone.jpg"], "no such file");
    assert_eq!(
        skipped(&plan)["x"],
        "is a folder, expected a photo; name the folder among the inputs, or list what is in it"
    );
    let text = refusal(&place, &listed(b"../in/b.txt", &base));
    assert!(text.starts_with("../in/b.txt in the list: leads out of a folder"), "{text}");
    let text = refusal(&place, &listed(b"/etc/hostname", &base));
    assert!(text.starts_with("/etc/hostname in the list: lies outside of the --base folder"), "{text}");
}

#[test]
fn results_never_become_inputs() {
    let place = Place::with(&["a.jpg", "out/a.png", "sub/b.jpg"]);
    let out = place.path("in/out");
    let of = |inputs: &[PathBuf]| {
        let selection = Selection { recursive: true, ..selection(inputs) };
        super::plan(&selection, &super::Masks::None, super::Unpaired::Refuse, &out, Shard::All)
    };
    assert_eq!(names(&of(&[place.path("in")]).unwrap()), ["a.jpg", "sub/b.jpg"]);
    assert_eq!(names(&of(&[place.path("in/**/*")]).unwrap()), ["a.jpg", "sub/b.jpg"]);
    for input in ["in/out", "in/out/a.png", "in/out/*.png"] {
        let text = of(&[place.path(input)]).unwrap_err().to_string();
        assert!(text.contains("lies in the output folder"), "{text}");
    }
}

#[test]
fn fault_60_an_output_folder_that_cannot_be_one_is_refused_before_any_work() {
    let place = Place::with(&["a.jpg"]);
    let check = |name: &str, create| {
        let checked = check_output_folder(&place.path(name), create);
        checked.map_err(|error| error.to_string().replace(&place.0.path().display().to_string(), "@"))
    };
    assert_eq!(check("in/a.jpg", false).unwrap_err(), "@/in/a.jpg: is a file, expected a folder for the outputs");
    assert_eq!(
        check("no/out", true).unwrap_err(),
        "@/no/out: cannot be made, @/no does not exist; mkdir -p @/no makes it"
    );
    assert_eq!(
        check("in/a.jpg/out", true).unwrap_err(),
        "@/in/a.jpg/out: cannot be used: Not a directory (os error 20)"
    );
    check("out", false).unwrap();
    assert!(!place.out().exists(), "a plan makes nothing");
    check("out", true).unwrap();
    assert!(place.out().is_dir());
    assert_eq!(std::fs::read_dir(place.out()).unwrap().count(), 0, "the probe is gone");
}

// Even the superuser makes no files there.
#[cfg(target_os = "linux")]
#[test]
fn fault_60_an_output_folder_that_takes_no_files_is_refused() {
    for create in [false, true] {
        let text = check_output_folder(Path::new("/proc"), create).unwrap_err().to_string();
        assert!(text.starts_with("/proc: /proc takes no files: "), "{text}");
    }
}

#[cfg(unix)]
#[test]
fn fault_67_a_link_in_the_output_folder_that_leads_to_the_photos_is_refused() {
    let place = Place::with(&["a/b.png", "c.png"]);
    std::fs::create_dir(place.out()).unwrap();
    std::os::unix::fs::symlink(place.path("in/a"), place.path("out/a")).unwrap();
    let text = refusal(&place, &place.all());
    assert_eq!(text, "@/out/a: is a link to @/in/a, among the photos; results must not lie there");
    // A link to another disk is the user's business.
    std::fs::remove_file(place.path("out/a")).unwrap();
    std::fs::create_dir(place.path("disk")).unwrap();
    std::os::unix::fs::symlink(place.path("disk"), place.path("out/a")).unwrap();
    assert_eq!(place.plan().items.len(), 2);
}

#[cfg(unix)]
#[test]
fn fault_68_links_pipes_sockets_and_devices_are_skipped_with_a_reason() {
    use std::os::unix::fs::symlink;
    let place = Place::with(&["a.jpg", "sub/b.jpg"]);
    place.write("elsewhere/c.jpg", "c");
    symlink(place.path("in"), place.path("in/sub/loop")).unwrap();
    symlink(place.path("elsewhere"), place.path("in/away")).unwrap();
    symlink(place.path("in/a.jpg"), place.path("in/same.jpg")).unwrap();
    symlink("/dev/zero", place.path("in/zero.jpg")).unwrap();
    symlink(place.path("nothing"), place.path("in/dangling.jpg")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.path("in/pipe.jpg")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(place.path("in/socket.jpg")).unwrap();
    let plan = place.plan();
    assert_eq!(names(&plan), ["a.jpg", "sub/b.jpg"]);
    let link = "symbolic link, not followed; --follow-links does";
    let expected = [
        ("away", link),
        ("dangling.jpg", link),
        ("loop", link),
        ("pipe.jpg", "a pipe, not a file"),
        ("same.jpg", link),
        ("socket.jpg", "a socket, not a file"),
        ("zero.jpg", link),
    ];
    let found = skipped(&plan);
    let found: Vec<_> = found.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
    assert_eq!(found, expected);
    assert!(!plan.has_errors());
    let following = Selection { follow_links: true, ..place.all() };
    let plan = place.plan_of(&following, Shard::All).unwrap();
    assert_eq!(names(&plan), ["a.jpg", "away/c.jpg", "same.jpg", "sub/b.jpg"]);
    let found = skipped(&plan);
    assert_eq!(found["loop"], "link to a folder that it lies in");
    assert_eq!(found["zero.jpg"], "a device, not a file");
    assert!(found["dangling.jpg"].starts_with("cannot be read: "));
    assert_eq!(
        refusal(&place, &selection(&[place.path("in/pipe.jpg")])),
        "@/in/pipe.jpg: is a pipe, expected a photo, a folder or a pattern"
    );
    let listed = Selection { listed: vec!["pipe.jpg".into()], base: Some(place.path("in")), ..Selection::default() };
    assert_eq!(skipped(&place.plan_of(&listed, Shard::All).unwrap())["pipe.jpg"], "is a pipe, expected a photo");
}

// Mode bits say nothing to the superuser: there, the folder is as unreadable as the next test makes one.
#[cfg(unix)]
#[test]
fn fault_70_a_folder_that_cannot_be_read_is_an_error_of_that_folder() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::with(&["a.jpg", "locked/b.jpg", "z/c.jpg"]);
    let mode = |mode| std::fs::set_permissions(place.path("in/locked"), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0);
    let is_closed = std::fs::read_dir(place.path("in/locked")).is_err();
    let plan = place.plan();
    mode(0o755);
    if is_closed {
        assert_eq!(names(&plan), ["a.jpg", "z/c.jpg"]);
        assert_eq!(skipped(&plan)["locked"], "cannot be read: Permission denied (os error 13)");
        assert!(plan.has_errors());
    } else {
        assert_eq!(names(&plan), ["a.jpg", "locked/b.jpg", "z/c.jpg"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn fault_70_ten_thousand_levels_do_not_overflow() {
    let place = Place::in_memory();
    ["a.jpg", "d/d/d/b.jpg", "z.jpg"].iter().for_each(|photo| place.photo(photo));
    // No path is that long: the shell goes down a thousand levels at a time.
    let script = "cd \"$0\" && p=d && for i in 1 2 3 4 5 6 7 8 9; do p=$p/d; done && q=$p && \
        for i in $(seq 99); do q=$q/$p; done && for i in $(seq 10); do mkdir -p $q && cd -P $q || exit 1; done";
    let made = std::process::Command::new("bash").args(["-c", script]).arg(place.path("in")).status().unwrap();
    assert!(made.success());
    let plan = place.plan();
    let removed = std::process::Command::new("rm").arg("-rf").arg(place.path("in")).status().unwrap();
    assert_eq!(names(&plan), ["a.jpg", "d/d/d/b.jpg", "z.jpg"]);
    assert_eq!(plan.skipped.len(), 1, "{:?}", plan.skipped.first());
    assert_eq!(plan.skipped[0].why.to_string(), "cannot be read: File name too long (os error 36)");
    assert!(plan.skipped[0].path.components().count() > 1900);
    assert!(plan.has_errors());
    assert!(removed.success());
}
