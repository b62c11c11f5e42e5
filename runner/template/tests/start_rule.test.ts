// When the page says that it can be recorded.

import assert from 'node:assert/strict';
import test from 'node:test';

import { begins } from '../src/start_rule';

const nothing = { joinedMs: 60_000, hasPicture: false, hasTrack: false, expectsPicture: false };

test('an empty room never begins', () => {
  assert.equal(begins(nothing), false);
  assert.equal(begins({ ...nothing, expectsPicture: true }), false);
});

test('a picture begins at once', () => {
  assert.equal(begins({ joinedMs: 0, hasPicture: true, hasTrack: true, expectsPicture: true }), true);
});

test('sound waits for a camera five seconds, and half a second where there is none', () => {
  const at = (joinedMs: number, expectsPicture: boolean) => begins({ ...nothing, hasTrack: true, joinedMs, expectsPicture });
  assert.deepEqual([at(500, false), at(501, false)], [false, true]);
  assert.deepEqual([at(5000, true), at(5001, true)], [false, true]);
});
