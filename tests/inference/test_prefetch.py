import threading

import pytest

from anchor_jax.inference.prefetch import dispatch_ahead, in_thread


def test_dispatch_ahead_requests_the_next_item_before_yielding_all_but_the_first():
  asked = []
  items = dispatch_ahead(asked.append(i) or i for i in range(4))
  assert [(next(items), list(asked)) for _ in range(3)] == [(0, [0]), (1, [0, 1, 2]), (2, [0, 1, 2, 3])]
  assert list(items) == [3] and list(dispatch_ahead(iter(()))) == []


def test_in_thread_yields_an_item_while_the_next_is_computed():
  go_on = threading.Event()

  def slow():
    yield 0
    assert go_on.wait(10)
    yield threading.current_thread()

  items = in_thread(slow())
  assert next(items) == 0
  go_on.set()
  assert next(items) is not threading.current_thread() and list(items) == []


def test_in_thread_forwards_exceptions():
  def failing():
    yield 0
    raise KeyError("lost")

  items = in_thread(failing())
  assert next(items) == 0
  with pytest.raises(KeyError, match="lost"):
    next(items)
