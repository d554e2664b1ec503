"""What every test shares: fixed seeds, an own cache folder, and the way to the real data beside the project."""

from __future__ import annotations

import gc
import getpass
import itertools
import logging
import multiprocessing
import os
import random
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

ROOT = Path(__file__).resolve().parent.parent

os.environ["DLKIT_LANG"] = "en"  # what dlkit says is compared, whatever the language of the machine

gc.disable()  # until all tests are collected: nothing of what is imported is garbage

# Where temporary files lie in memory: the suite waits for thousands of `fsync`s, each of which takes milliseconds on a
# disk. Not where programs may not be run from, nor without room for what the tests write; TMPDIR overrules it.
_MEMORY, _ROOM = Path("/dev/shm"), 4 << 30


def _is_roomy_memory() -> bool:
    if not os.access(_MEMORY, os.W_OK | os.X_OK):
        return False
    disk = os.statvfs(_MEMORY)
    return disk.f_bavail * disk.f_frsize >= _ROOM and not disk.f_flag & os.ST_NOEXEC


if "TMPDIR" not in os.environ and _is_roomy_memory():
    os.environ["TMPDIR"], tempfile.tempdir = str(_MEMORY), None  # for this process, and for all that it starts

# One folder for everything that a run leaves there: processes that tests kill, documents and examples cannot tidy up.
# The first process of a run makes it, tells the others by TMPDIR, and removes it. pytest keeps its own folders beside
# it, where those of failed tests stay, and Hypothesis what it found.
_LASTING = Path(tempfile.gettempdir())
_RUN = re.compile(r"dlkit-tests-(\d+)")
if _RUN.fullmatch(_LASTING.name):
    _LASTING = _LASTING.parent
else:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_LASTING))
    os.environ["TMPDIR"] = tempfile.tempdir = str(_LASTING / f"dlkit-tests-{os.getpid()}")
    os.makedirs(tempfile.tempdir, 0o711, exist_ok=True)  # to be passed through by a user without rights
    Finalize(None, lambda: _remove_runs(), exitpriority=-1_000)  # after what multiprocessing itself removes


def _remove_runs() -> None:
    """The temporary files of this run, and of those that were killed."""
    for folder in _LASTING.iterdir():
        if (run := _RUN.fullmatch(folder.name)) and (int(run[1]) == os.getpid() or not _is_running(int(run[1]))):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


# What `make quick` leaves out, the longest first, in which order `make test` begins: whole files and single tests that
# start programs or worker processes, build models of timm and torchvision, train until something is learnt, or run
# documents and examples. A test that takes more than a second belongs here.
SLOW = [
    "test_demo",
    "cli/test_projects",
    "distributed/test_worlds",
    "distributed/test_sharding",
    "distributed/test_judging",
    "distributed/test_world_sources",
    "distributed/test_launching",
    "distributed/test_world_kills",
    "training/test_exactness",
    "training/test_kills",
    "test_transfer_models",
    "test_transfer_freezing",
    "test_loader_start",
    "cli/test_program",
    "cli/test_language::test_a_training_says_korean_and_has_the_same_numbers",
    "recipes/test_searching",
    "cli/test_sound_commands",
    "recipes/test_tables_of_files",
    "artifact/test_audio_files",
    "test_transfer_sounds",
    "cli/test_wheel",
    "training/test_transfer_trainer",
    "test_transfer_heads",
    "test_transfer_photos",
    "test_transfer_features",
    "test_text_examples",
    "test_text_encoders",
    "test_examples",
    "tables/test_tables_examples",
    "datasets/test_audio_examples",
    "datasets/test_image_examples",
    "tables/test_tables_streaming",
    "test_docs",
    "datasets/test_image_cache",
    "serving/test_load",
    "test_import_time",
    "test_release",
    "training/test_rehearsal",
    "test_models",
    "test_transfer_groups",
    "recipes/test_tuning",
    "artifact/test_crafted",
    "recipes/test_training",
    "recipes/test_train_folds",
    "recipes/test_groups_and_time::test_the_command_line_says_it_too",
    "test_tabular_models::test_it_predicts_from_its_file_and_as_onnx_what_it_predicted",
    "recipes/test_reading",
    "recipes/test_report",
    "recipes/test_samples",
    "recipes/test_groups_and_time::test_what_has_no_order_and_no_columns_is_refused",
    "recipes/test_standing::test_training_says_what_its_score_is_worth",
    "test_bars::test_a_notebook_shows_a_bar",
    "test_bars::test_an_export_says_where_it_is",
    "test_bars::test_what_asks_for_no_progress_gets_none",
    "test_notebook_kinds",
    "test_sklearn_estimators::test_scikit_learns_own_checks",
    "test_mixed_models",
    "training/test_steps::test_a_compiled_model_keeps_clean_keys",
    "callbacks/test_loggers::test_a_process_that_is_really_killed",
    "tables/test_tables_dataset::test_workers_give_the_same_batches",
    "inference/test_predictor::test_opening_imports_no_training_code_and_is_quick",
    "test_transforms::test_carrying_out_a_plan_wakes_no_threads_of_torch",
    "test_plots::test_nothing_global_is_touched",
    "test_plots::test_a_full_disk_leaves_the_old_picture",
    "test_loader::test_the_same_batches_for_any_workers",
    "test_imbalance::test_what_is_rare_is_found_more_often",
    "test_splits::test_keys_are_the_same_in_another_process",
    "test_splits::test_groups_and_duplicates_stay_together",
    "artifact/test_model_file::test_a_pretrained_backbone_brings_its_preprocessing",
    "artifact/test_model_file::test_onnx_takes_pixels_and_normalises_inside",
    "artifact/test_model_file::test_every_bit_of_the_header_and_every_97th_of_the_rest",
    "datasets/test_image_truncated::test_it_is_named",
    "datasets/test_glyphs::test_another_process_draws_the_same_without_matplotlib",
    "datasets/test_text_sources::test_a_line_of_50_megabytes",
    "cli/test_commands::test_inspect_tells_what_is_in_a_table",
    "cli/test_commands::test_compare_puts_the_better_features_first",
    "tables/test_tables_extreme",
    "datasets/test_image_folders",
    "test_archives",
    "test_download",
    "datasets/test_notmnist",
    "tables/test_tables_dataset::test_no_finite_number_becomes_an_infinite_input",
    "cli/test_commands::test_export_for_other_programs_computes_the_same",
    "test_one_rule_for_targets::test_any_labels_mean_the_same_to_all",
    "runs/test_store::test_two_processes_cannot_train_in_one_folder",
    "datasets/test_text_dataset::test_a_broken_off_training_goes_on_with_the_same_batches",
    "training/test_closures::test_a_resumed_run_is_the_same",
    "datasets/test_image_unreadable",
    "test_suite::test_arguments_folder_environment_and_exit_status",
    "test_suite::test_errors_texts_and_modules",
    "test_suite::test_signals",
    "test_caches::test_what_another_process_uses_stays",
    "test_specs::test_dlkits_own_models_load_in_a_process_that_imported_dlkit_alone",
    "datasets/test_image_decoding::test_every_nasty_file_decodes_as_the_manifest_says_or_is_refused_with_its_name",
    "test_streams",
    "training/test_trainer_errors::test_fit_arguments_that_cannot_be_meant",
    "training/test_trainer_errors::test_what_a_step_of_ones_own_would_ignore_in_silence",
    "tables/test_tables_dataset::test_no_new_value_ever_fails",
    "artifact/test_model_file::test_a_compiled_model_is_saved_as_the_one_inside",
    "datasets/test_base::test_rows_behave_as_the_list_of_samples",
    "test_metrics::test_against_scikit_learn",
    "test_transforms::test_random_boxes_are_distributed_like_torchvisions",
    "test_transforms::test_reduced_pixels_give_the_same_picture_as_full_ones",
    "tables/test_tables_reading::test_an_archive_that_would_fill_the_memory_is_refused",
    "tables/test_tables_reading::test_made_files_come_back",
    "callbacks/test_progress::test_the_device_is_read_at_most_four_times_a_second",
    "callbacks/test_early_stopping::test_resuming_anywhere_changes_nothing",
    "training/test_continuing",
    "training/test_judged",
    "datasets/test_batches_left_out",
    "serving/test_running",
    "tables/test_one_pipeline::test_a_file_means_the_same_in_memory_and_in_blocks_of_any_size",
]

# Workers that are new processes ("forkserver") are forked from one that has imported what takes seconds; dlkit treats
# them as spawned ones, which import it each time.
multiprocessing.set_forkserver_preload(["pytest", "torch.utils.data", "dlkit.loader", "dlkit.datasets"])

# The one place for Hypothesis. "ci" draws the same few examples every time, so that unchanged code gives an unchanged
# result; "fuzz" (`make fuzz`) searches at random, and remembers what it found. No deadline: on a busy machine a first
# call may take a second, and what is too slow is for the benchmarks to say.
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("fuzz", deadline=None, derandomize=False, max_examples=200, print_blob=True)
settings.load_profile("ci")
# By default Hypothesis keeps its findings in the current folder, and no test writes into the source tree.
set_hypothesis_home_dir(_LASTING / f"dlkit-hypothesis-{getpass.getuser()}")

_FOUND = """\
What `make fuzz` found becomes a test that `make test` runs every time. Above the test's @given stands
    @example(ARGUMENTS)    # from hypothesis import example; the arguments as Hypothesis printed them above
For a test that draws from st.data(), write a test of its own with the values that were drawn.
First make it fail with `make test`, then mend the code."""


class _Workers:
    """The worker processes of torch's loaders.

    An error that a worker raised refers to itself, and keeps its loader alive until garbage is collected, which then
    waits five seconds for the workers. So they end with the test.
    """

    def __init__(self) -> None:
        self._loaders = weakref.WeakSet[Any]()

    def note(self, kind: Any) -> None:
        """Note each of torch's iterators that has workers from now on."""
        start = kind.__init__

        def started(loader: Any, *arguments: Any, **named: Any) -> None:
            start(loader, *arguments, **named)
            self._loaders.add(loader)

        kind.__init__ = started

    def end(self) -> None:
        """End those that live on, unless they serve a next epoch."""
        while self._loaders:
            loader = self._loaders.pop()
            if not loader._persistent_workers:
                loader._shutdown_workers()


_WORKERS = _Workers()


def pytest_runtest_teardown() -> None:
    """Let the workers of a test's loaders end with it."""
    _WORKERS.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and let it come first: the two processes then end at the same time."""
    places = {name: place for place, name in enumerate(SLOW)}

    def place(item: pytest.Item) -> int:
        file = os.path.relpath(item.path, ROOT / "tests").removesuffix(".py")
        single = f"{file}::{getattr(item, 'originalname', item.name)}"
        return places.get(file, places.get(single, len(places)))

    for item in items:
        if place(item) < len(places):
            item.add_marker("slow")
    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Make the process ready for its tests. (With xdist the first one only hands them out, and never imports torch.)

    Tests run side by side on few cores, where threads that wait for each other cost more than they bring. Garbage is
    collected again, but never again among torch and thousands of tests that were loaded before. For every test pytest
    adds six handlers to each logger that does not propagate; torch has some 40 of them. For each kind of device that is
    not there, `torch.manual_seed` writes down the call stack, of which pytest and Hypothesis make a long one.
    """
    import torch
    from torch.utils.data import dataloader

    torch.set_num_threads(1)
    if not torch.accelerator.is_available():
        for kind in (torch.cuda, torch.xpu, torch.mtia):
            kind.manual_seed_all = lambda seed: None
    _WORKERS.note(dataloader._MultiProcessingDataLoaderIter)
    gc.freeze()
    gc.enable()
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "torch":
            logging.getLogger(name).propagate = True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what to do with a finding of the random search."""
    if terminalreporter.stats.get("failed") and config.getoption("--hypothesis-profile") == "fuzz":
        terminalreporter.write_sep("=", "from a finding to a test")
        terminalreporter.write_line(_FOUND)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same random state, alone or in any order."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def cache_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new folder each time. `mktemp` looks through all that it made before to find the next number."""
    root = tmp_path_factory.mktemp("dlkit-homes")
    return (root / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_cache(cache_folders: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's cache folder."""
    folder = next(cache_folders)
    folder.mkdir()
    monkeypatch.setenv("DLKIT_HOME", str(folder))
    monkeypatch.delenv("DLKIT_OFFLINE", raising=False)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real test data: `DLKIT_TEST_DATA`, else `../shared/data` beside the project."""
    folder = Path(os.environ.get("DLKIT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real test data is not at {folder}; set DLKIT_TEST_DATA to the folder that has it")
    return folder
