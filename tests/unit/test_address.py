"""Forbidden addresses and URLs in every spelling, the whole table, and what is public passes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.address import _FORBIDDEN as TABLE
from dispatcherd.address import AddressGuard, as_literal
from dispatcherd.errors import AddressForbidden

GUARD = AddressGuard([])


def is_forbidden(address: str, guard: AddressGuard = GUARD) -> bool:
    try:
        guard.check(address)
    except AddressForbidden:
        return True
    return False


def refusal(url: str, guard: AddressGuard = GUARD, allow_http: bool = False) -> str:
    """The words in which a URL is refused; fails when it is not."""
    with pytest.raises(AddressForbidden) as caught:
        guard.check_url(url, allow_http)
    words = str(caught.value)
    assert words.isprintable()
    assert len(words) < 600
    return words


def words(text: str) -> list[str]:
    return text.split()


# --- the table -----------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "why"), TABLE)
def test_every_line_of_the_table_forbids_its_whole_network_and_says_why(
    network: str, why: str
) -> None:
    block = ip_network(network)
    for address in (block[0], block[block.num_addresses // 2], block[-1]):
        with pytest.raises(AddressForbidden) as caught:
            GUARD.check(str(address))
        assert why in str(caught.value)
        assert "network.allowed_networks" in str(caught.value)


def test_no_line_of_the_table_is_covered_by_another() -> None:
    blocks = [ip_network(network) for network, _ in TABLE]
    for index, block in enumerate(blocks):
        for other in blocks[:index] + blocks[index + 1 :]:
            assert other[0] not in block


@pytest.mark.parametrize(("network", "why"), TABLE)
def test_the_operator_opens_a_network_and_nothing_beside_it(network: str, why: str) -> None:
    block = ip_network(network)
    guard = AddressGuard([network])
    assert not is_forbidden(str(block[0]), guard)
    assert not is_forbidden(str(block[-1]), guard)
    for neighbour in (int(block[0]) - 1, int(block[-1]) + 1):
        if 0 <= neighbour < 1 << block.max_prefixlen:
            text = str(type(block[0])(neighbour))
            assert is_forbidden(text, guard) == is_forbidden(text)


def test_the_operator_may_open_one_address() -> None:
    guard = AddressGuard(["10.1.2.3/32"])
    assert not is_forbidden("10.1.2.3", guard)
    assert not is_forbidden("::ffff:10.1.2.3", guard)
    assert is_forbidden("10.1.2.4", guard)


# --- concrete addresses --------------------------------------------------------------------

FORBIDDEN = words(
    """
    0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1
    127.255.255.254 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.170 192.0.2.1
    192.168.0.1 192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1
    239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:169.254.169.254
    0:0:0:0:0:ffff:10.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::8.8.8.8
    64:ff9b:1::10.0.0.1 2002:7f00:1:: 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:20::1 2001:db8::1
    100::1 3fff::1 3fff:fff:ffff::1 5f00::1 fc00::1 fd00:ec2::254 fdff:ffff::1 fe80::1 fe80::1%eth0
    fe80::1%1 ::1%lo febf::1 fec0::1 feff::1 ff02::1 ff0e::1
    """
)

PUBLIC = words(
    """
    1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1
    169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0
    198.17.255.255 198.20.0.0 223.255.255.255 ::ffff:8.8.8.8 2606:4700:4700::1111
    2001:4860:4860::8888 2a00:1450:4001:81b::200e 2620:fe::fe 2600::
    """
)


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert is_forbidden(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes(address: str) -> None:
    assert not is_forbidden(address)


@pytest.mark.parametrize("address", ["", "localhost", "127.1", "8.8.8", "1.2.3.4.5", "x", "::1::"])
def test_what_is_no_address_is_refused(address: str) -> None:
    assert is_forbidden(address)
    assert is_forbidden(address, AddressGuard(["0.0.0.0/0", "::/0"]))


@given(number=st.integers(0, 2**32 - 1))
def test_a_v4_address_and_its_mapped_form_are_judged_alike(number: int) -> None:
    plain = IPv4Address(number)
    assert is_forbidden(str(plain)) == is_forbidden(f"::ffff:{plain}")
    assert is_forbidden(f"::{plain}")
    assert is_forbidden(f"64:ff9b::{plain}")


@given(number=st.integers(0, 2**128 - 1))
def test_a_zone_changes_no_verdict(number: int) -> None:
    text = str(IPv6Address(number))
    assert is_forbidden(text) == is_forbidden(text + "%eth0")


def test_the_hosts_own_addresses_are_refused_also_when_they_are_public() -> None:
    guard = AddressGuard([], ["8.8.4.4", "2606:4700::1", "fe80::5%eth0"])
    assert is_forbidden("8.8.4.4", guard)
    assert is_forbidden("::ffff:8.8.4.4", guard)
    assert is_forbidden("2606:4700:0::1", guard)
    assert not is_forbidden("8.8.8.8", guard)
    assert not is_forbidden("8.8.4.4", AddressGuard(["8.8.4.0/24"], ["8.8.4.4"]))


def test_verdicts_are_remembered_in_bounded_number_and_stay_right() -> None:
    guard = AddressGuard([])
    for number in range(25_000):
        assert not is_forbidden(str(IPv4Address(0x08000000 + number)), guard)
    assert len(guard._verdicts) <= 10_000
    assert is_forbidden("127.0.0.1", guard)


# --- spellings of an address in a URL ------------------------------------------------------

LOOPBACK = words(
    """
    127.0.0.1 127.1 127.0.1 2130706433 0x7f.0.0.1 0x7f000001 0X7F.1 0177.0.0.1 017700000001
    00000177.0.0.1 0x7f.0x0.0x0.0x1 127.0.0.1. 127.0.0.1.. ①②⑦.⓪.⓪.① 127。0。0。1 １２７.０.０.１
    ⑫7.0.0.1 127．0．0．1 127｡0｡0｡1 [::1]
    [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1]
    [::1%25lo] localhost LOCALHOST localhost. localhost.. localhost。 ｌocalhost ⓛⓞⓒⓐⓛⓗⓞⓢⓣ
    a.localhost a.localhost.
    """
)

ELSEWHERE = words(
    """
    0 0.0.0.0 0x0 [::] 10.1 0xa.0x01 192.168.1 169.254.169.254 0xa9fea9fe 2852039166
    0251.0376.0251.0376 [fe80::1] [fe80::1%25eth0] [fe80::1%eth0] [fec0::1] [ff02::1] [fd00::1]
    [64:ff9b::127.0.0.1] [64:ff9b:1::1] [2002:7f00:1::] [2001::1] [3fff::1] [5f00::1] [2001:db8::1]
    255.255.255.255 224.1 256.1.1.1 1.2.3.256 4294967296 1.2.65536
    """
)


@pytest.mark.parametrize("host", LOOPBACK + ELSEWHERE)
def test_a_url_of_a_forbidden_address_is_refused_in_every_spelling(host: str) -> None:
    for url in (f"https://{host}/", f"https://{host}:8443/hook?a=b"):
        words = refusal(url)
        assert "forbidden" in words or "loopback" in words


@pytest.mark.parametrize("host", LOOPBACK)
def test_loopback_in_every_ascii_spelling_is_allowed_where_the_operator_opened_it(
    host: str,
) -> None:
    guard = AddressGuard(["127.0.0.0/8", "::/96"])
    if host.isascii():
        guard.check_url(f"http://{host}/", allow_http=False)
    else:
        assert "ASCII" in refusal(f"http://{host}/", guard)


@given(
    number=st.integers(0, 2**32 - 1),
    form=st.sampled_from(["{0}", "0x{0:x}", "0{0:o}", "{1}.{2}", "{1}.0x{3:x}.{4}", "0{1:o}.{2}"]),
)
def test_any_number_that_spells_an_address_is_read_as_inet_aton_reads_it(
    number: int, form: str
) -> None:
    first, rest = number >> 24, number & 0xFFFFFF
    text = form.format(number, first, rest, rest >> 16, rest & 0xFFFF)
    assert as_literal(text) == IPv4Address(number)


@given(text=st.text("0123456789abcdefx.-_+%[]:" + "①。", max_size=40))
def test_reading_an_address_never_raises(text: str) -> None:
    as_literal(text)
    GUARD.allows_literal(text)


# --- other faults of a URL -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("https://user@example.com/", "user name"),
        ("https://user:pass@example.com/", "user name"),
        ("https://:@example.com/", "user name"),
        ("https://@example.com/", "user name"),
        ("https://example.com@127.0.0.1/", "user name"),
        ("https://exa mple.com/", "control"),
        ("https://example.com/a b", "control"),
        ("https://example.com/\r\nHost: x", "control"),
        ("https://example.com/\rx", "control"),
        ("https://example.com\n", "control"),
        ("https://exam\tple.com/", "control"),
        ("https://example.com/\x00", "control"),
        ("https://example.com/\x7f", "control"),
        ("https://example.com/\x85", "control"),
        ("https://example.com/\u2028", "control"),
        ("https://exa\u200bmple.com/", "control"),
        ("\thttps://example.com/", "control"),
        ("https://example.com\\@127.0.0.1/", "backslash"),
        ("https:\\\\example.com/", "backslash"),
        ("https://example.com/a\\b", "backslash"),
        ("https://example.com:0/", "port 0"),
        ("https://example.com:00/", "port 0"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:70000/", "port"),
        ("https://example.com:-1/", "port"),
        ("https://example.com:8a/", "port"),
        ("https://example.com:٣/", "port"),
        ("ftp://example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://example.com/", "scheme"),
        ("//example.com/", "scheme"),
        ("example.com", "scheme"),
        ("javascript:alert(1)", "scheme"),
        ("", "scheme"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://:443/", "no host"),
        ("https:example.com", "no host"),
        ("https://?x", "no host"),
        ("https://[::1/", "URL"),
        ("https://[]/", "URL"),
        (f"https://{'a' * 300}.com/", "label"),
        (f"https://{'a' * 64}.com/", "label"),
        ("https://a..com/", "label"),
        ("https://.com/", "label"),
        (f"https://{'a.' * 130}com/", "253"),
        ("https://xn--99999999999/", "punycode"),
        ("https://xn--.com/", "punycode"),
        ("https://xn--abc-.com/", "punycode"),
        ("https://www.XN--99999999999.com/", "punycode"),
        ("https://%31%32%37.0.0.1/", "name"),
        ("https://ex%61mple.com/", "name"),
        ("https://a,b/", "name"),
        ("https://a<b/", "name"),
        ("https://ex$mple.com/", "name"),
        ("https://bücher.example/", "xn--bcher-kva.example"),
        ("https://ｅxample.com/", "write example.com"),
        ("https://example.com/bücher", "percent-encoded"),
        ("http://example.com/", "plain http"),
        ("http://8.8.8.8/", "plain http"),
    ],
)
def test_a_url_that_cannot_or_must_not_be_sent_to_is_refused_with_the_reason(
    url: str, word: str
) -> None:
    assert word in refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/",
        "HTTPS://EXAMPLE.COM/Hook",
        "https://example.com:65535/a/b?c=d&e=%20#f",
        "https://example.com:/",
        "https://example.com./",
        "https://my_host.example-1.com/",
        "https://xn--bcher-kva.example/",
        "https://xn--strae-oqa.de/",  # valid by IDNA 2008 alone
        "https://xn--i-7iq.ws/",  # registered, though no version of IDNA allows it
        "https://8.8.8.8/",
        "https://134744072/",
        "https://[2606:4700:4700::1111]:8443/",
        f"https://{'a' * 63}.com/",
        "https://example.com/a@b",
        "https://1.2.3.4.5.example.com/",
        "https://0x-1/",
        "https://127.0.0.1.example.com/",  # a name: judged by its addresses at connect
    ],
)
def test_a_sound_url_passes(url: str) -> None:
    GUARD.check_url(url, allow_http=False)


def test_plain_http_passes_where_it_is_allowed_and_towards_allowed_networks() -> None:
    GUARD.check_url("http://example.com/", allow_http=True)
    guard = AddressGuard(["10.0.0.0/8"])
    guard.check_url("http://10.1.2.3/", allow_http=False)
    assert "plain http" in refusal("http://example.com/", guard)
    assert "forbidden" in refusal("http://10.1.2.3/", allow_http=True)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cret@example.com/",
        "https://s3cret@example.com/",
        "https://user:s3cret@example.com\\x",
        "https://us@er:s3cret@example.com:99999/",
        "https://[user:s3cret@example.com/",
        "ftp://user:s3cret@example.com/",
        "user:s3cret@example.com",
        "https://user:s3cret@exa mple.com/",
        "https://user:s3cret" + "x" * 5_000 + "@example.com/",
    ],
)
def test_a_password_in_a_url_is_not_repeated_in_the_refusal(url: str) -> None:
    assert "s3cret" not in refusal(url)


@given(
    url=st.one_of(
        st.text(max_size=60),
        st.builds("https://{}/".format, st.text(max_size=40)),
        st.builds("https://{}/".format, st.text("0123456789abcdefx.-_+%[]:@①。", max_size=30)),
    )
)
def test_any_text_is_judged_without_another_error(url: str) -> None:
    try:
        GUARD.check_url(url, allow_http=False)
    except AddressForbidden as error:
        assert str(error).isprintable()
    else:
        assert url.isascii()
