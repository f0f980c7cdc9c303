//! Masks find their photos by name.

use super::{Place, names, plan, skipped};
use std::path::PathBuf;
use tweedie::batch::{Masks, Plan, Shard, Unpaired};
use tweedie::image::MaskSource;

fn place(photos: &[&str], masks: &[&str]) -> Place {
    let place = Place::with(photos);
    std::fs::create_dir(place.path("masks")).unwrap();
    masks.iter().for_each(|mask| place.write(PathBuf::from("masks").join(mask), mask));
    place
}

fn paired(place: &Place, masks: &Masks, unpaired: Unpaired) -> tweedie::Result<Plan> {
    plan(&place.all(), masks, unpaired, &place.out(), Shard::All)
}

/// Photo and mask of every item.
fn pairs(place: &Place, plan: &Plan) -> Vec<(String, String)> {
    let mask = |item: &tweedie::batch::Item| match item.mask.as_deref() {
        Some(MaskSource::File(path)) => path.strip_prefix(place.0.path()).unwrap().display().to_string(),
        other => format!("{other:?}"),
    };
    plan.items.iter().map(|item| (item.relative.display().to_string(), mask(item))).collect()
}

fn refusal(place: &Place, masks: &Masks) -> String {
    let text = paired(place, masks, Unpaired::Refuse).unwrap_err().to_string();
    text.replace(&place.0.path().display().to_string(), "@")
}

#[test]
fn masks_of_a_folder_pair_by_path_and_stem_and_never_by_position() {
    let place = place(&["a.jpg", "b.jpg", "x/a.jpg"], &["x/a.png", "b.jpg", "a.png", "notes.txt"]);
    let plan = paired(&place, &Masks::Folder(place.path("masks")), Unpaired::Refuse).unwrap();
    let expected = [("a.jpg", "masks/a.png"), ("b.jpg", "masks/b.jpg"), ("x/a.jpg", "masks/x/a.png")];
    assert_eq!(pairs(&place, &plan), expected.map(|(photo, mask)| (photo.into(), mask.into())));
}

#[test]
fn fault_37_missing_and_extra_masks_are_refused_with_the_first_ten() {
    let photos: Vec<String> = (0..12).map(|k| format!("{k:02}.jpg")).collect();
    let photos: Vec<&str> = photos.iter().map(String::as_str).collect();
    let place = place(&photos, &["00.png", "zz.png"]);
    let masks = Masks::Folder(place.path("masks"));
    let listed: Vec<String> = (1..11).map(|k| format!("@/in/{k:02}.jpg")).collect();
    assert_eq!(
        refusal(&place, &masks),
        format!(
            "11 photos have no mask: {} and 1 more; 1 mask has no photo: @/masks/zz.png; masks pair by relative path; \
             --missing-mask skip leaves the others out",
            listed.join(", ")
        )
    );
    let plan = paired(&place, &masks, Unpaired::Skip).unwrap();
    assert_eq!(names(&plan), ["00.jpg"]);
    assert_eq!(plan.skipped.len(), 12);
    assert_eq!(skipped(&plan)["05.jpg"], "no mask");
    assert_eq!(skipped(&plan)["zz.png"], "mask without a photo");
    assert!(!plan.has_errors());
}

#[test]
fn fault_37_the_same_number_of_masks_is_not_enough() {
    let place = place(&["a.jpg", "b.jpg"], &["c.png", "d.png"]);
    let text = refusal(&place, &Masks::Folder(place.path("masks")));
    assert!(text.starts_with("2 photos have no mask: @/in/a.jpg, @/in/b.jpg; 2 masks have no photo: "), "{text}");
}

#[test]
fn fault_37_an_extra_mask_alone_is_refused() {
    let place = place(&["a.jpg"], &["a.png", "b.png"]);
    let text = refusal(&place, &Masks::Folder(place.path("masks")));
    assert!(text.starts_with("1 mask has no photo: @/masks/b.png; "), "{text}");
}

#[test]
fn two_masks_of_a_stem_are_refused_even_if_missing_ones_are_skipped() {
    let place = place(&["a.jpg"], &["a.png", "a.tiff"]);
    let error = paired(&place, &Masks::Folder(place.path("masks")), Unpaired::Skip).unwrap_err().to_string();
    assert!(error.contains("in/a.jpg has two masks, "), "{error}");
    // The very same name is no question.
    place.write("masks/a.jpg", "mask");
    let plan = paired(&place, &Masks::Folder(place.path("masks")), Unpaired::Skip).unwrap();
    assert_eq!(pairs(&place, &plan), [("a.jpg".into(), "masks/a.jpg".into())]);
}

#[test]
fn a_folder_of_masks_among_the_photos_holds_no_photos() {
    let place = Place::with(&["a.jpg", "x/b.jpg", "masks/a.png", "masks/x/b.png"]);
    let plan = paired(&place, &Masks::Folder(place.path("in/masks")), Unpaired::Refuse).unwrap();
    assert_eq!(
        pairs(&place, &plan),
        [("a.jpg".into(), "in/masks/a.png".into()), ("x/b.jpg".into(), "in/masks/x/b.png".into())]
    );
    let plan = paired(&place, &Masks::One(MaskSource::File(place.path("in/masks/a.png"))), Unpaired::Refuse).unwrap();
    assert_eq!(names(&plan), ["a.jpg", "masks/x/b.png", "x/b.jpg"], "the one mask is no photo");
}

#[test]
fn masks_beside_photos_are_found_by_their_ending() {
    let place = Place::with(&["a.jpg", "a.mask.png", "x/b.jpg", "x/b.jpg.mask.png"]);
    let masks = Masks::Suffix(".mask.png".into());
    let plan = paired(&place, &masks, Unpaired::Refuse).unwrap();
    assert_eq!(
        pairs(&place, &plan),
        [("a.jpg".into(), "in/a.mask.png".into()), ("x/b.jpg".into(), "in/x/b.jpg.mask.png".into())]
    );
    place.photo("c.jpg");
    place.photo("d.mask.png");
    assert_eq!(
        refusal(&place, &masks),
        "1 photo has no mask: @/in/c.jpg; 1 mask has no photo: @/in/d.mask.png; masks pair by relative path; \
         --missing-mask skip leaves the others out"
    );
    place.photo("a.jpg.mask.png");
    let text = refusal(&place, &masks);
    assert!(text.contains("@/in/a.jpg has two masks, @/in/a.jpg.mask.png and @/in/a.mask.png"), "{text}");
    for suffix in ["", "a/b"] {
        let text = refusal(&place, &Masks::Suffix(suffix.into()));
        assert!(text.ends_with("expected the end of a name, such as .mask.png"), "{text}");
    }
}

#[test]
fn one_mask_is_shared_by_all_and_must_be_there() {
    let place = place(&["a.jpg", "b.jpg"], &["m.png"]);
    let one = Masks::One(MaskSource::File(place.path("masks/m.png")));
    let plan = paired(&place, &one, Unpaired::Refuse).unwrap();
    assert_eq!(pairs(&place, &plan).len(), 2);
    let masks: Vec<_> = plan.items.iter().map(|item| item.mask.clone().unwrap()).collect();
    assert!(std::sync::Arc::ptr_eq(&masks[0], &masks[1]));
    assert_eq!(
        refusal(&place, &Masks::One(MaskSource::File(place.path("no.png")))),
        "@/no.png: no such file, folder or pattern"
    );
    assert_eq!(
        refusal(&place, &Masks::One(MaskSource::File(place.path("masks")))),
        "--masks is @/masks, a folder, expected a folder of masks or one mask"
    );
    let text = refusal(&place, &Masks::Folder(place.path("masks/m.png")));
    assert!(text.ends_with("expected a folder of masks or one mask"), "{text}");
    let alpha = paired(&place, &Masks::One(MaskSource::Alpha), Unpaired::Refuse).unwrap();
    assert_eq!(alpha.items[0].mask.as_deref(), Some(&MaskSource::Alpha));
}
