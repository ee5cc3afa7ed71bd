"""Muon, Grokfast and QK-clip from the command line."""

import json

from ourospec.claims.recipes import with_settings
from ourospec.families.dense_lm.presets import smoke

ON = ["--optim.muon", "on", "--optim.grokfast", "on", "--optim.qk-clip", "on"]


def test_they_are_switched_on_and_set(ouro):
    code, out, _ = ouro("train", "dense_lm/smoke", *ON, "--optim.muon.lr", "0.01", "--print-config")
    assert code == 0
    optim = json.loads(out)["optim"]
    assert (optim["muon"]["lr"], optim["grokfast"]["strength"], optim["qk_clip"]["limit"]) == (
        0.01,
        2.0,
        100.0,
    )
    code, out, _ = ouro("train", "dense_lm/smoke", "--print-config")
    assert json.loads(out)["optim"].keys().isdisjoint({"muon", "grokfast", "qk_clip"})


def test_a_setting_of_what_is_off_says_how_to_switch_it_on(ouro):
    code, _, err = ouro("train", "dense_lm/smoke", "--optim.muon.lr", "0.01", "--print-config")
    assert code == 2
    assert "--optim.muon on --optim.muon.lr" in err


def test_the_plan_counts_what_they_keep(ouro, corpus):
    found = {}
    for way, options in {"adamw": [], "muon": ON[:2], "all": ON}.items():
        code, out, _ = ouro("plan", "dense_lm/smoke", "--no-measure", "--json", *options, *corpus)
        assert code == 0
        found[way] = json.loads(out)["memory"]["optimizer"]
    weights = found["adamw"] // 2
    assert weights < found["muon"] < 2 * weights < found["all"] == found["muon"] + weights


def test_a_claim_can_switch_them_on():
    muon = with_settings(smoke(), {"optim.muon": {"lr": 0.01}}, "Arm a").optim.muon
    assert muon is not None and muon.lr == 0.01
