"""Number formats of the pages."""

import pytest

from kdnas.page.formatting import arch_name, count, milliseconds, minutes, num, percent, plain, ratio, sci


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (num(0.87412, "ms"), "0.874\xa0ms"),
        (num(6.541), "6.54"),
        (num(64.98), "65.0"),
        (num(0.99962), "1.00"),
        (num(9.999), "10.0"),
        (num(100.0), "100"),
        (num(0.1), "0.100"),
        (num(999.7), "1\u202f000"),
        (num(12345.6), "12\u202f346"),
        (num(0), "0"),
        (num(-2.5), "-2.50"),
        (num(None, "ms"), "not measured"),
        (num(float("nan")), "not measured"),
        (milliseconds(1.5), "1.50\xa0ms"),
        (count(2400), "2\u202f400"),
        (percent(0.98312), "98.3\xa0%"),
        (ratio(8.3412), "8.34×"),
        (ratio(22.998), "23.0×"),
        (ratio(9.999), "10.0×"),
        (sci(2.4e-6), "2.4e-06"),
        (minutes(90), "1.5\xa0min"),
        (minutes(3.14), "3.1\xa0s"),
        (minutes(None), "not measured"),
        (plain(["a", "b"]), "2"),
        (plain(None), "not measured"),
        (arch_name("4,12,384,1024,gelu"), "L4-H12-D384-F1024-gelu"),
        (arch_name("something else"), "something else"),
    ],
)
def test_number_formats(shown: str, expected: str) -> None:
    assert shown == expected
