from lit_mtdqn.analysis.score_table import TaskResult, score_table


def result(task: str, score: float, success: float | None = None) -> TaskResult:
    return TaskResult(task, 100, 487.25, 31.5, 400.0, 500.0, 487.25, success, score)


def test_the_table_is_aligned_and_ends_with_mean_and_worst_score() -> None:
    results = [result("cartpole", 0.9734), result("traffic_light", 0.5, success=0.875)]
    assert score_table(results).splitlines() == [
        "task           episodes          return  length  success  score",
        "---------------------------------------------------------------",
        "cartpole            100  487.25 ± 31.50   487.2        -  0.973",
        "traffic_light       100  487.25 ± 31.50   487.2      88%  0.500",
        "---------------------------------------------------------------",
        "all tasks                               mean 0.737  worst 0.500",
    ]


def test_the_table_tells_held_out_tasks_from_the_others() -> None:
    results = [result("cartpole", 0.9734), result("far", 0.5), result("pole", 0.75)]
    last = score_table(results, held_out={"far"}).splitlines()[-1]
    assert last.split("  ")[-3:] == ["mean 0.862", "worst 0.750", "held out 0.500"]


def test_the_table_of_one_task_needs_no_row_over_all() -> None:
    assert len(score_table([result("cartpole", 1.0)]).splitlines()) == 3


def test_the_table_has_a_column_of_specialists_where_there_are_any() -> None:
    results = [result("cartpole", 0.9734), result("far", 0.5)]
    lines = score_table(results, of_specialists={"cartpole": 1.0625, "far": None}).splitlines()
    assert [line.split("  ")[-1] for line in lines[:1]] == ["of specialist"]
    assert [line.split()[-1] for line in lines[2:4]] == ["1.062", "-"]
    assert len({len(line) for line in lines}) == 1
