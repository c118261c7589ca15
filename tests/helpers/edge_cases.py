"""What breaks video tools, row by row, and the tests that show what ours does instead."""

from __future__ import annotations

from typing import NamedTuple


class EdgeCase(NamedTuple):
    row: int
    what: str
    tests: tuple[str, ...]
    """``file.py::test_name``, each a function in one of the test folders."""


def _case(row: int, what: str, *tests: str) -> EdgeCase:
    return EdgeCase(row, what, tests)


EDGE_CASES = (
    _case(
        1,
        "a phone's clip whose frames are not evenly spaced",
        "test_edge_cases.py::test_uneven_times_keep_duration_sound_and_times",
        "test_video.py::test_uneven_times_keep_their_duration_and_are_counted",
    ),
    _case(
        2,
        "a clip that was filmed upright and is stored lying down",
        "test_cli_run.py::test_frames_are_upright",
        "test_video.py::test_rotated_video_comes_upright",
    ),
    _case(
        3,
        "a width or height that H.264 cannot halve",
        "test_edge_cases.py::test_odd_sizes_keep_masks_and_metrics_exact",
        "test_video_writer.py::test_odd_sizes_are_padded_by_repeating_the_edge",
    ),
    _case(
        4,
        "a file of which not one frame decodes",
        "test_edge_cases.py::test_no_frame_decoded_leaves_nothing",
        "test_video.py::test_no_frame_at_all_is_an_error_and_leaves_no_process",
    ),
    _case(
        5,
        "a copy or recording that was broken off",
        "test_edge_cases.py::test_a_cut_off_file_is_segmented_as_far_as_it_goes",
        "test_cli_run.py::test_what_is_no_video_gets_one_line_and_leaves_nothing",
        "test_video.py::test_truncated_file_gives_what_decodes_and_says_so",
        "test_video.py::test_file_without_its_index_is_one_clear_line",
    ),
    _case(
        6,
        "a header that miscounts the frames",
        "test_edge_cases.py::test_a_wrong_frame_count_changes_nothing",
        "test_video.py::test_declared_count_too_low_does_not_stop_decoding",
        "test_video.py::test_hidden_frames_of_an_edit_list_are_not_missed",
    ),
    _case(
        7,
        "text, a picture or a song under a video's name",
        "test_edge_cases.py::test_what_holds_no_moving_pictures_is_named",
        "test_cli_run.py::test_what_is_no_video_gets_one_line_and_leaves_nothing",
        "test_video.py::test_other_files_are_named_for_what_they_are",
        "test_video.py::test_picture_named_like_a_video",
        "test_video.py::test_sound_only_and_missing_files",
    ),
    _case(
        8,
        "covers, time codes and second cameras beside the video",
        "test_edge_cases.py::test_covers_and_data_streams_are_left_alone",
        "test_video.py::test_first_real_video_stream_is_taken",
        "test_video.py::test_cover_art_alone_is_no_video",
    ),
    _case(
        9,
        "transparent pixels",
        "test_edge_cases.py::test_what_was_lost_of_the_pictures_is_said_once",
        "test_video.py::test_alpha_is_composited_on_black_and_said_once",
        "test_images.py::test_alpha_is_composited_on_black_and_said_once",
    ),
    _case(
        10,
        "more than 8 bits, and HDR",
        "test_edge_cases.py::test_what_was_lost_of_the_pictures_is_said_once",
        "test_video.py::test_ten_bits_are_read_and_hdr_is_said",
    ),
    _case(
        11,
        "no sound, or sound that mp4 cannot hold",
        "test_edge_cases.py::test_what_became_of_the_sound_is_told",
        "test_edge_cases.py::test_sound_that_cannot_be_read_costs_nothing_but_itself",
        "test_video_writer.py::test_sources_without_sound",
        "test_video_writer.py::test_other_codecs_are_copied_or_become_aac",
        "test_video_writer.py::test_sound_that_nothing_can_read_is_dropped_with_the_reason",
    ),
    _case(
        12,
        "frames of 8K, and of a few pixels",
        "test_edge_cases.py::test_tiny_and_narrow_frames",
        "test_soak.py::test_one_frame_of_8k",
        "test_video.py::test_sizes_from_tiny_to_8k",
        "test_untrusted_media.py::test_frames_too_large_for_the_memory_are_refused",
        "test_inference.py::test_intervals_are_halved_until_they_fit",
        "test_inference.py::test_a_frame_that_does_not_fit_is_reported",
    ),
    _case(
        13,
        "a full disk, a read-only folder, an encoder that dies",
        "test_edge_cases.py::test_a_full_disk_is_told_and_leaves_nothing_half_written",
        "test_edge_cases.py::test_a_disk_full_of_masks_is_told",
        "test_edge_cases.py::test_a_read_only_folder_is_refused_before_any_work",
        "test_edge_cases.py::test_an_encoder_that_is_killed_is_told",
        "test_video_writer.py::test_full_disk_is_told_in_the_encoders_words",
        "test_resume.py::test_a_full_disk_leaves_a_run_that_can_go_on",
        "test_outputs.py::test_read_only_folder",
    ),
    _case(
        14,
        "Ctrl-C, or a scheduler that wants its machine back",
        "test_cli_run.py::test_an_interrupt_keeps_what_is_finished_and_nothing_half_written",
        "test_resume.py::test_an_interrupt_leaves_whole_parts_and_says_how_many_frames_are_safe",
        "test_resume_after_kill.py::test_20_kills_leave_no_trace",
        "test_resume_after_kill.py::test_signals_at_any_time_end_in_one_line_and_exit_code_130",
        "test_resume.py::test_an_interrupt_does_not_wait_for_an_idle_stdin",
        "test_video_writer.py::test_interrupt_reaches_us_and_not_the_encoder",
        "test_video_writer.py::test_leaving_by_an_exception_or_abort_leaves_nothing",
    ),
    _case(
        15,
        "results that would replace the source",
        "test_cli_run.py::test_output_that_is_the_input_is_refused_even_with_overwrite",
        "test_outputs.py::test_an_input_that_a_result_would_replace_is_refused",
        "test_outputs.py::test_the_input_as_output_folder_is_refused",
    ),
    _case(
        16,
        "results that are there already",
        "test_cli_run.py::test_existing_results_are_refused_before_the_model_loads",
        "test_resume.py::test_an_unfinished_run_is_not_replaced_by_accident",
        "test_resume.py::test_a_second_run_into_the_same_folder_is_refused_while_the_first_one_lives",
        "test_outputs.py::test_each_result_alone_is_refused_without_overwrite",
        "test_outputs.py::test_overwrite_removes_results_and_leftovers_but_nothing_foreign",
    ),
    _case(
        17,
        "names that shells, libraries and options stumble over",
        "test_edge_cases.py::test_names_of_any_kind",
        "test_cli_run.py::test_hostile_names",
        "test_video.py::test_names_have_no_meaning",
        "test_video_writer.py::test_names_have_no_meaning",
        "test_outputs.py::test_a_name_that_is_too_long",
    ),
    _case(
        18,
        "a video that comes through a pipe",
        "test_cli_run.py::test_stdin",
        "test_video.py::test_stdin_is_read_as_a_stream",
        "test_video.py::test_stdin_that_holds_no_video",
        "test_resume.py::test_streams_and_contradictions_are_usage_errors",
        "test_video.py::test_named_pipe_and_leaving_it_early",
    ),
    _case(
        19,
        "a folder with frames of several sizes, other files, and numbers without zeros in front",
        "test_edge_cases.py::test_a_folder_of_all_kinds_of_files",
        "test_images.py::test_natural_order_exact_pixels_and_times",
        "test_images.py::test_other_entries_are_skipped_and_counted",
        "test_images.py::test_first_size_is_kept_and_others_are_named",
    ),
    _case(
        20,
        "an image that is empty or damaged",
        "test_edge_cases.py::test_a_folder_of_all_kinds_of_files",
        "test_cli_run.py::test_folder_with_a_corrupt_image_holds_the_last_one",
        "test_images.py::test_bad_image_holds_the_one_before",
        "test_evaluate.py::test_a_missing_image_is_a_missing_frame_and_an_empty_one_is_damage",
        "test_cli_eval.py::test_damage_stops_with_one_line_that_names_the_file_unless_it_is_accepted",
    ),
    _case(
        21,
        "masks of wrong values, kinds and sizes",
        "test_cli_eval.py::test_damage_stops_with_one_line_that_names_the_file_unless_it_is_accepted",
        "test_evaluate.py::test_damaged_frames_stop_or_are_skipped",
        "test_evaluate.py::test_stray_mask_values_stop_or_are_ignored_pixel_by_pixel",
        "test_evaluate.py::test_values_beyond_the_classes_are_refused_with_file_and_value",
        "test_vspw.py::test_damaged_masks_are_named",
    ),
    _case(
        22,
        "frames or videos of a data set that are not there",
        "test_cli_eval.py::test_missing_data_is_counted_and_fails_unless_it_is_accepted",
        "test_evaluate.py::test_missing_frames_break_strict_windows_only",
        "test_evaluate.py::test_missing_videos_are_listed",
        "test_vspw.py::test_lost_frames_are_gaps",
    ),
    _case(
        23,
        "going on with other options, another video or other weights",
        "test_resume.py::test_other_options_are_refused_with_the_difference",
        "test_resume.py::test_other_weights_are_refused",
        "test_resume.py::test_another_version_is_refused",
        "test_resume.py::test_another_video_is_refused_and_the_same_one_elsewhere_is_not",
    ),
    _case(
        24,
        "one broken file among many",
        "test_edge_cases.py::test_a_table_of_failures_comes_last",
        "test_cli_run.py::test_one_bad_input_of_many",
        "test_resume.py::test_a_batch_skips_what_is_finished_and_continues_the_rest",
    ),
    _case(
        25,
        "weights from strangers",
        "test_edge_cases.py::test_a_pickle_as_model_does_not_run",
        "test_weights.py::test_pickles_are_never_opened",
        "test_weights.py::test_truncated_files_are_refused",
        "test_weights.py::test_a_header_length_beyond_the_file_is_refused_before_it_is_read",
        "test_convert.py::test_a_malicious_pickle_does_not_run",
    ),
    _case(
        26,
        "names that are markup",
        "test_edge_cases.py::test_names_that_are_markup_stay_names",
        "test_page.py::test_names_from_outside_never_become_markup",
        "test_page.py::test_nothing_is_loaded_from_elsewhere",
        "test_report.py::test_names_of_any_kind_survive",
    ),
    _case(27, "a reader that has seen enough", "test_cli_run.py::test_a_reader_that_leaves_is_no_error"),
    _case(
        28,
        "options that make no sense",
        "test_cli_run.py::test_senseless_options_are_usage_errors_and_leave_nothing",
        "test_cli_eval.py::test_senseless_options_are_refused_before_any_work",
        "test_compare.py::test_senseless_options_are_refused_before_any_work",
        "test_network.py::test_an_address_needs_permission",
    ),
)
