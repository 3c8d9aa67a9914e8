"""Breakages of what protects money, one line each where one line does it, and who must notice.

A mutant is old text, new text, a file, and the tests that have to die of it: as few as is honest, so that all of them
together stay cheap. `old` occurs exactly once in today's source (a test of the default suite holds that), so that the
table cannot rot. What a mutant is for stands in its name. To add one: break the line by hand, see which test dies; if
none does, that test is what is missing.

Run them: `python -m tests.mutants.run [NAME…]`.
"""

# ruff: noqa: E501 (a table reads across)

from __future__ import annotations

from dataclasses import dataclass

HOLDINGS = "provisioner/holdings.py"
FIELDS, LISTED = "provisioner/journal_fields.py", "tests/core/test_journal_fields.py"
NAMES, NAMED = "provisioner/names.py", "tests/core/test_names.py"
LEASE, JOURNAL, LEDGER = "provisioner/lease.py", "provisioner/journal.py", "provisioner/ledger.py"
WATCHDOG, CLOSING, SCOPE = "provisioner/watchdog.py", "provisioner/closing.py", "provisioner/scope.py"
GUARDS, REAP, RUN, KEYS = "provisioner/guards.py", "provisioner/reap.py", "provisioner/run.py", "provisioner/remote/keys.py"

CRASH, RULES, HELD = "tests/core/test_crash.py", "tests/core/test_lease_rules.py", "tests/core/test_holdings.py"
FILE, FILE_RULES = "tests/core/test_journal.py", "tests/core/test_journal_rules.py"
DOG = "tests/os/test_watchdog.py"
LEDGERS, CLOSINGS, SCOPES = "tests/core/test_ledger.py", "tests/core/test_closing.py", "tests/core/test_scope.py"
LAUNCHING, LAUNCHES = "provisioner/launching.py", "tests/core/test_launching.py"
AT_AWS, SCHEDULE = "tests/rehearsal_endpoint/test_guard_at_aws.py", "provisioner/providers/aws_schedule.py"
REAPS, GUARDED, RUNS = "tests/core/test_reap.py", "tests/core/test_guards.py", "tests/core/test_run_ends.py"
READ_BACK, NETWORK, HOSTKEY = (
    "provisioner/providers/aws_read_back.py",
    "provisioner/providers/aws_network.py",
    "provisioner/remote/hostkey.py",
)
READS, HOSTKEYS = "tests/aws/test_aws_read_back.py", "tests/remote/test_hostkey.py"
OFFERED, PRICED, QUOTED = (
    "provisioner/providers/aws_offers.py",
    "provisioner/providers/aws_prices.py",
    "provisioner/providers/aws_quotas.py",
)
SPOTTED, TYPED = "provisioner/providers/aws_spot.py", "provisioner/providers/aws_types.py"
SURVEYS, PRICES = "tests/aws/test_aws_survey.py", "tests/aws/test_aws_prices.py"
OLD_PRICES = "tests/aws/test_aws_offers.py"
LOGIN, CLIENT, LOGINS = "provisioner/providers/aws_login.py", "provisioner/providers/aws_client.py", "tests/aws/test_aws_login.py"
FLEETS, FLEET_LAUNCH = "tests/core/test_fleet_rules.py", "tests/rehearsal_endpoint/test_fleet_launch.py"
METER, METERED = "cost/from_journal.py", "tests/cost/test_cost_meter.py"
TIMES, DRILL, DRILLS = "provisioner/times.py", "provisioner/drill/one.py", "tests/drill/test_drill.py"
LISTPRICE, LISTPRICES = "provisioner/evidence/listprice.py", "tests/evidence/test_listprice.py"
UNFILTERED, UNFILTERS = "provisioner/providers/aws_unfiltered.py", "tests/rehearsal_endpoint/test_unfiltered.py"


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()  # more of the same breakage, in the same file

    def broken(self, source: str) -> str:
        """That source with the breakage in it. LookupError when it is not as the table says."""
        for old, new in ((self.old, self.new), *self.also):
            if source.count(old) != 1:
                raise LookupError(f"{self.name}: its old text occurs {source.count(old)} times in {self.file}; needs 1: {old!r}")
            source = source.replace(old, new)
        return source


MUTANTS = [
    # -- the journal: on disk before the act, in one form, with one owner ------------------------------------------------
    Mutant("no-sync", JOURNAL, "            sync(self._fd)\n", "            pass\n", (f"{FILE_RULES}::test_a_line_is_synced_after_it_is_written_and_before_append_returns",)),
    Mutant("sync-does-nothing", JOURNAL, "        os.fdatasync(fd)\n", "        pass\n", (f"{FILE_RULES}::test_a_line_is_synced_after_it_is_written_and_before_append_returns",)),
    Mutant("append-swallows-the-disk", JOURNAL, "        self._put(line)\n", "        with contextlib.suppress(OSError):\n            self._put(line)\n", (f"{FILE_RULES}::test_append_raises_what_the_disk_says",)),
    Mutant("write-after-a-hole", JOURNAL, "        if self.unwritten is not None:\n", "        if False:\n", (f"{FILE}::test_after_a_failed_fsync_nothing_more_is_claimed",)),
    Mutant("torn-tail-stays", JOURNAL, "            os.ftruncate(self._fd, was.sound)\n", "", (f"{FILE_RULES}::test_a_long_torn_tail_is_cut_off_and_not_just_written_over",)),
    Mutant("torn-tail-refused", JOURNAL, '        if not end or (end == len(raw) and b"\\0" in line):\n', '        if end == len(raw) and b"\\0" in line:\n', (f"{FILE}::test_a_torn_last_line_is_dropped_at_every_byte",)),
    Mutant("chain-not-checked", JOURNAL, ' or entry["prev"] != head', "", (f"{FILE_RULES}::test_a_line_out_of_the_count_the_chain_or_the_form_is_damage",)),
    Mutant("lines-not-counted", JOURNAL, ' or entry["seq"] != len(entries)', "", (f"{FILE_RULES}::test_a_line_out_of_the_count_the_chain_or_the_form_is_damage",)),
    Mutant("form-not-checked", JOURNAL, ' or rfc8785.dumps(entry) + b"\\n" != line', "", (f"{FILE_RULES}::test_a_line_out_of_the_count_the_chain_or_the_form_is_damage",)),
    Mutant("lock-not-taken", JOURNAL, "                fcntl.flock(self._fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))\n", "                pass\n", (f"{FILE}::test_a_second_owner_is_turned_away",)),
    Mutant("lock-let-go-early", JOURNAL, "            self._reserve()\n            sync_folder", "            self._reserve()\n            fcntl.flock(self._fd, fcntl.LOCK_UN)\n            sync_folder", (f"{FILE_RULES}::test_the_lock_is_held_from_the_opening_to_the_end",)),
    Mutant("lock-of-the-other-kind", JOURNAL, "fcntl.flock(self._fd, fcntl.LOCK_EX", "fcntl.lockf(self._fd, fcntl.LOCK_EX", (f"{FILE_RULES}::test_the_lock_is_held_from_the_opening_to_the_end",)),
    Mutant("lock-inherited", JOURNAL, "os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)\n        try:", "os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)\n        os.set_inheritable(self._fd, True)\n        try:", (f"{FILE_RULES}::test_a_child_process_does_not_inherit_the_lock",)),
    Mutant("old-journal-taken-for-the-new", JOURNAL, "            if not os.path.samestat(os.fstat(self._fd), os.stat(path)):\n", "            if False:\n", (f"{FILE_RULES}::test_who_waited_for_a_journal_that_was_begun_anew_meanwhile_does_not_get_the_old_one",)),
    Mutant("ballast-kept", JOURNAL, "            self._ballast.unlink()  # the reserve is for exactly this\n", "", (f"{FILE_RULES}::test_the_reserve_makes_room_for_the_line_that_found_the_disk_full",)),
    Mutant("ballast-given-and-not-used", JOURNAL, "            try:\n                self._write(line)\n            except OSError:\n                self._back_to(sound)\n                raise\n", "            raise\n", (f"{FILE_RULES}::test_the_reserve_makes_room_for_the_line_that_found_the_disk_full",)),
    Mutant("half-a-line-stays", JOURNAL, "            self._back_to(sound)\n            if e.errno", "            if e.errno", (f"{FILE_RULES}::test_the_reserve_makes_room_for_the_line_that_found_the_disk_full",)),
    Mutant("note-raises", JOURNAL, "        except OSError as e:\n            self.unwritten", "        except ZeroDivisionError as e:\n            self.unwritten", (f"{CRASH}::test_a_full_disk_costs_the_record_never_the_removal",)),
    Mutant("note-chokes-on-a-float", JOURNAL, "        except (TypeError, ValueError):\n            # What", "        except ZeroDivisionError:\n            # What", (f"{FILE_RULES}::test_a_note_is_always_made_and_the_file_stays_sound", f"{RULES}::test_no_fact_that_a_provider_tells_can_stop_the_letting_go")),
    Mutant("unwritten-not-remembered", JOURNAL, "            self.unwritten = self.unwritten or e\n", "", (f"{RULES}::test_an_answer_that_cannot_be_written_down_is_still_acted_upon",)),
    Mutant("address-written-in-clear", JOURNAL, "            case str() if name in HIDDEN:\n                return self._names.instead(HIDDEN[name], value)\n", "", (f"{NAMED}::test_the_machines_address_and_the_account_of_its_image_are_closed_and_can_be_opened",)),
    Mutant("opening-not-synced", NAMES, "        os.write(fd, b\"\\n\" + row if torn else row)\n        os.fsync(fd)\n", "        os.write(fd, b\"\\n\" + row if torn else row)\n", (f"{NAMED}::test_an_opening_is_on_disk_before_the_line_that_needs_it",)),
    Mutant("opening-taken-on-trust", NAMES, "                if commitment(row[\"field\"], row[\"value\"], bytes.fromhex(row[\"salt\"])) == row[\"commitment\"]:\n", "                if True:\n", (f"{NAMED}::test_an_opening_that_does_not_open_or_is_torn_is_none_and_the_next_is_kept_all_the_same",)),
    Mutant("damaged-openings-keep-the-lease", NAMES, "LookupError, TypeError, AttributeError, RecursionError):", "LookupError):", (f"{NAMED}::test_openings_that_are_lost_or_damaged_stop_no_letting_go",)),
    Mutant("unreadable-openings-keep-the-lease", NAMES, "    with contextlib.suppress(OSError):\n        # Not of a pipe", "    with contextlib.suppress(ZeroDivisionError):\n        # Not of a pipe", (f"{NAMED}::test_openings_that_are_lost_or_damaged_stop_no_letting_go",)),
    Mutant("full-disk-for-an-opening-stops-the-line", NAMES, "        with contextlib.suppress(OSError):  # a full disk", "        with contextlib.suppress(ZeroDivisionError):  # a full disk", (f"{NAMED}::test_openings_that_are_lost_or_damaged_stop_no_letting_go",)),
    Mutant("any-field-enters", JOURNAL, "_allowed(journal_fields.kept(kind, body))", "_allowed(body)", (f"{LISTED}::test_what_is_not_listed_does_not_enter_at_any_depth",)),
    Mutant("any-field-enters-deeper", FIELDS, "                if not _fits(one, shape[name]):\n", "                if False:\n", (f"{LISTED}::test_what_is_not_listed_does_not_enter_at_any_depth",)),
    Mutant("an-object-enters-as-a-text", FIELDS, "        if shape is None or isinstance(shape, Digests):\n", "        if shape is None:\n            return True\n        if isinstance(shape, Digests):\n", (f"{LISTED}::test_an_object_where_a_text_is_listed_does_not_enter_either",)),
    Mutant("a-field-too-many-stops-the-line", FIELDS, "    noticed(kind, names)\n", "    raise ValueError(names)\n", (f"{LISTED}::test_a_field_too_many_stops_neither_an_intent_nor_the_letting_go",)),
    Mutant("a-secret-as-a-name-is-told", FIELDS, " and OURS.fullmatch(name) else", " else", (f"{LISTED}::test_the_name_of_what_was_left_out_is_told_only_if_it_looks_like_one_of_ours",)),
    Mutant("journal-readable-by-others", JOURNAL, " or info.st_mode & 0o077:", ":", (f"{FILE}::test_a_journal_that_others_can_read_is_refused",)),
    # -- the lease: intent before act, one way out, a verdict is an observation ------------------------------------------
    Mutant("intent-after-create", LEASE, '        intent = self.journal.append("intent", {"op": "create", "class": kind, "token": token, "params": spec.public()})\n', '        self.provider.create(kind, spec, lease=self.id, token=token, made=self.made)\n        intent = self.journal.append("intent", {"op": "create", "class": kind, "token": token, "params": spec.public()})\n', (f"{CRASH}::test_nothing_is_created_that_could_not_be_written_down_first",)),
    Mutant("intent-only-noted", LEASE, '        intent = self.journal.append("intent", {"op": "create"', '        intent = self.journal.note("intent", {"op": "create"', (f"{CRASH}::test_nothing_is_created_that_could_not_be_written_down_first",)),
    Mutant("lost-answer-is-a-refusal", LEASE, "        except NotCreated as e:\n", "        except ProviderError as e:\n", (f"{CRASH}::test_an_open_intent_is_closed_by_a_refusal_and_by_nothing_else",)),
    Mutant("refusal-leaves-the-intent-open", HOLDINGS, "                token = held.intents.pop(body[\"intentSeq\"], \"\")\n", "                token = held.intents.get(body[\"intentSeq\"], \"\")\n", (f"{CRASH}::test_an_open_intent_is_closed_by_a_refusal_and_by_nothing_else",)),
    Mutant("unknown-closes-the-intent", HOLDINGS, '            case "failed", "create":\n', '            case "failed" | "unknown", "create":\n', (f"{CRASH}::test_an_open_intent_is_closed_by_a_refusal_and_by_nothing_else",)),
    Mutant("no-finally", LEASE, "    finally:\n        lease.verdict = release(", "    else:\n        lease.verdict = release(", (f"{CRASH}::test_a_failing_body_is_released_by_its_own_process",)),
    Mutant("only-errors-let-go", LEASE, "    except BaseException as e:\n        journal.note(\"failure\", failure_body(e))\n        raise\n    finally:\n        lease.verdict = release(id, provider, journal, clock, patience=patience, linger=linger, tell=tell)\n", "    except Exception as e:\n        journal.note(\"failure\", failure_body(e))\n        lease.verdict = release(id, provider, journal, clock, patience=patience, linger=linger, tell=tell)\n        raise\n    else:\n        lease.verdict = release(id, provider, journal, clock, patience=patience, linger=linger, tell=tell)\n", (f"{RULES}::test_every_way_out_of_the_body_lets_go",)),
    Mutant("nothing-done-nothing-to-do", LEASE, "    if not begun.asked and not begun.rebuilt", "    if not begun.rebuilt", (f"{CRASH}::test_a_lost_answer_keeps_the_lease_open_for_the_whole_settle_time",)),
    Mutant("lost-journal-asked-nothing", LEASE, "    if not begun.asked and not begun.rebuilt", "    if not begun.asked", (f"{RULES}::test_what_a_lost_journal_knew_is_waited_for_and_never_called_released",)),
    Mutant("seen-but-never-asked-for", LEASE, " and not begun.elsewhere and not begun.resources:", " and not begun.elsewhere:", (f"{RULES}::test_something_that_was_seen_is_looked_for_even_if_nothing_was_ever_asked_for",)),
    Mutant("one-look-is-enough", LEASE, "                enough = began - quiet_since >= needed and young", "                enough = not held.intents and young", (f"{CRASH}::test_one_empty_look_is_not_enough",)),
    Mutant("second-look-at-once", LEASE, "else provider.traits.second_look_s", "else 0.5", (f"{RULES}::test_two_empty_looks_lie_as_far_apart_as_the_provider_needs",)),
    Mutant("settle-ignored", LEASE, "provider.traits.settle_s if hidden else ", "", (f"{CRASH}::test_a_lost_answer_keeps_the_lease_open_for_the_whole_settle_time",)),
    Mutant("settle-ignored-for-a-lost-journal", LEASE, "held.unfilled or held.rebuilt or held.elsewhere", "held.unfilled or held.elsewhere", (f"{RULES}::test_what_a_lost_journal_knew_is_waited_for_and_never_called_released",)),
    Mutant("waiting-by-the-wall-clock", LEASE, "        began = clock.counting()", "        began = clock.now()", (f"{RULES}::test_setting_the_wall_clock_neither_shortens_nor_stretches_the_waiting",)),
    Mutant("patience-by-the-wall-clock", LEASE, "    started = clock.counting()\n", "    started = clock.now()\n    clock = type('', (), {'counting': clock.now, 'now': clock.now, 'sleep': clock.sleep})\n", (f"{RULES}::test_patience_ends_however_the_clock_is_set",)),
    Mutant("a-failed-look-does-not-count", LEASE, "            quiet_since, seen, lingers = None, Verdict.UNPROVEN, False\n", "            seen, lingers = Verdict.UNPROVEN, False\n", (f"{RULES}::test_a_look_that_fails_begins_the_waiting_anew",)),
    Mutant("no-answer-is-an-empty-list", LEASE, "            quiet_since, seen, lingers = None, Verdict.UNPROVEN, False\n", "            quiet_since, seen, lingers = clock.counting(), Verdict.RELEASED, False\n", (f"{CRASH}::test_an_answer_we_may_not_have_is_never_called_released",)),
    Mutant("free-goes-on-the-first-look", LEASE, " or not (held.unended or held.elsewhere or held.rebuilt)\n", " or True\n", (f"{RULES}::test_what_is_free_is_not_removed_on_the_first_look_that_misses_the_machine",)),
    Mutant("missing-is-an-end-that-was-seen", HOLDINGS, " and resource.state != NOT_FOUND):\n", "):\n", (f"{RULES}::test_what_is_free_is_not_removed_on_the_first_look_that_misses_the_machine",)),
    Mutant("asks-after-its-deadline", LEASE, "            if self._clock.now() >= instant(spec.deadline):\n", "            if False:\n", (f"{RULES}::test_a_process_that_goes_on_after_the_deadline_asks_for_nothing",)),
    Mutant("unchecked-is-empty", LEASE, "        if not looked.checked and looked.kind in held.kinds:\n", "        if False:\n", (f"{RULES}::test_a_list_without_the_kind_that_was_made_is_no_empty_list",)),
    Mutant("any-unchecked-kind-blocks", LEASE, "        if not looked.checked and looked.kind in held.kinds:\n", "        if not looked.checked:\n", (f"{RULES}::test_a_kind_that_we_never_make_may_stay_unchecked",)),
    Mutant("a-provider-that-breaks-ends-it", LEASE, "        except Exception as e:\n            # Not", "        except ProviderError as e:\n            # Not", (f"{RULES}::test_a_provider_that_breaks_is_one_that_did_not_answer",)),
    Mutant("a-removal-that-breaks-ends-it", LEASE, "    except Exception as e:\n        # As in", "    except ProviderError as e:\n        # As in", (f"{RULES}::test_a_provider_that_breaks_is_one_that_did_not_answer",)),
    Mutant("blind-asks-for-nothing", LEASE, "            left = [replace(r, lease=id) for r in known().resources.values() if r.phase is not Phase.GONE]\n", "            left = []\n", (f"{RULES}::test_who_may_not_list_still_ends_what_the_journal_knows",)),
    Mutant("listed-not-noted-first", LEASE, "    for listed in inventory.resources:\n        met(listed)\n    for known", "    for known", (f"{RULES}::test_one_question_that_fails_does_not_keep_the_rest",)),
    Mutant("one-look-fails-all", LEASE, "                failed = failed or e  #", "                raise  #", (f"{RULES}::test_what_may_not_be_looked_at_does_not_hide_that_the_rest_is_gone",)),
    Mutant("a-failed-look-is-forgotten", LEASE, "    if failed is not None:\n        raise failed if costly", "    if False:\n        raise failed if costly", (f"{RULES}::test_what_may_not_be_looked_at_does_not_hide_that_the_rest_is_gone",)),
    Mutant("a-plain-no-is-asked-for-ever", LEASE, "        if denied_since is not None and now - denied_since >= DENIED_S:\n", "        if False:\n", (f"{RULES}::test_a_plain_no_about_what_costs_nothing_settles_soon_and_is_never_released",)),
    Mutant("a-denied-machine-settles-soon", LEASE, " and not (hidden or held.unended or any(r.billed for r in left))\n", "\n", (f"{RULES}::test_a_machine_that_may_not_be_seen_or_ended_keeps_the_whole_patience_beside_such_a_guard",)),
    Mutant("no-answer-is-a-no", LEASE, "costly = costly or known.billed or not isinstance(e, NotPermitted)\n", "costly = costly or known.billed\n", (f"{RULES}::test_what_does_not_answer_is_no_denial",)),
    Mutant("unlisted-is-gone", LEASE, "                found[known.id] = _observe(provider, replace(known, lease=id), held, now)\n", "                continue\n", (f"{RULES}::test_what_the_list_lacks_is_asked_for_by_its_name",)),
    Mutant("not-shown-is-gone", LEASE, "        return replace(known, state=NOT_SHOWN)\n", "        return seen\n", (f"{CRASH}::test_a_new_machine_that_is_not_shown_yet_is_not_taken_for_gone",)),
    Mutant("giving-up-is-released", LEASE, "            return _conclude(journal, seen, left, quiet)\n", "            return _conclude(journal, Verdict.RELEASED, left, quiet)\n", (f"{CRASH}::test_a_machine_that_lingers_is_called_leaving",)),
    Mutant("leaving-is-gone", LEASE, "    left = [r for r in found.values() if r.phase is not Phase.GONE]\n", "    left = [r for r in found.values() if r.phase is Phase.HERE]\n", (f"{CRASH}::test_a_machine_that_lingers_is_called_leaving",)),
    Mutant("held-and-leaving-swapped", LEASE, "Verdict.HELD if costs else Verdict.LEAVING", "Verdict.LEAVING if costs else Verdict.HELD", (f"{CRASH}::test_a_machine_that_lingers_is_called_leaving",)),
    Mutant("what-is-free-costs", LEASE, "any(r.billed and r.phase is not Phase.LEAVING for r in left)", "any(r.phase is not Phase.LEAVING for r in left)", (f"{RULES}::test_what_is_free_and_stays_is_not_called_held",)),
    Mutant("coming-costs-nothing", LEASE, "any(r.billed and r.phase is not Phase.LEAVING for r in left)", "any(r.billed and r.phase is Phase.HERE for r in left)", (f"{RULES}::test_a_machine_that_is_only_coming_is_asked_to_go_and_counts_as_held",)),
    Mutant("coming-is-not-asked", LEASE, "    if resource.phase is Phase.LEAVING:\n        return \"\"\n", "    if resource.phase in (Phase.LEAVING, Phase.COMING):\n        return \"\"\n", (f"{RULES}::test_a_machine_that_is_only_coming_is_asked_to_go_and_counts_as_held",)),
    Mutant("rebuilt-is-released", LEASE, "and young <= 0 and not held.rebuilt\n", "and young <= 0\n", (f"{RULES}::test_what_a_lost_journal_knew_is_waited_for_and_never_called_released",)),
    Mutant("an-old-verdict-stands", HOLDINGS, "                    held.verdict = None  # an older", "                    pass  # an older", (f"{RULES}::test_what_is_seen_after_a_verdict_takes_the_verdict_back",)),
    Mutant("a-story-can-end-it", LEASE, "    tell = unbreakable(tell)\n", "", (f"{RULES}::test_a_story_that_cannot_be_told_does_not_end_the_letting_go",)),
    # -- the folder of leases --------------------------------------------------------------------------------------------
    Mutant("state-folder-readable", LEDGER, "    if mode & 0o077:\n", "    if False:\n", (f"{LEDGERS}::test_a_state_folder_that_others_can_enter_is_refused",)),
    Mutant("nobody-is-alive", LEDGER, "    except BlockingIOError:\n        return True\n", "    except BlockingIOError:\n        return False\n", (f"{LEDGERS}::test_a_lease_is_alive_while_somebody_has_its_journal",)),
    Mutant("adopt-a-live-lease", LEDGER, "    except Broken:\n        _set_aside(folder)\n        journal = Journal(folder.journal, clock)\n", "    except (Broken, Busy):\n        os.rename(folder.journal, folder.path / 'journal.broken-1.jsonl')\n        journal = Journal(folder.journal, clock)\n", (f"{LEDGERS}::test_a_lease_that_somebody_has_is_not_adopted",)),
    Mutant("set-aside-under-its-owner", LEDGER, "        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "", (f"{LEDGERS}::test_a_damaged_journal_that_somebody_has_is_not_renamed",)),
    Mutant("lost-journal-is-a-new-one", LEDGER, "        if not journal.entries:\n            _begin_anew(folder, journal)\n", "", (f"{LEDGERS}::test_a_lost_journal_is_not_taken_for_a_lease_that_asked_for_nothing",)),
    Mutant("private-keys-for-everybody", KEYS, "    _write_new(folder / name, private, 0o600)\n", "    _write_new(folder / name, private, 0o644)\n", ("tests/remote/test_keys.py::test_a_private_key_is_for_its_owner_only_whatever_the_umask",)),
    Mutant("metal-not-waited-for", LEASE, "patience + linger if lingers else patience - waited)", "patience - (now - started))", (f"{RULES}::test_bare_metal_that_takes_half_an_hour_to_shut_down_is_seen_gone",)),
    Mutant("lingers-on-what-bills", LEASE, "patience + linger if lingers else patience - waited)", "patience + linger)", (f"{RULES}::test_what_still_bills_is_not_waited_for_any_longer_than_patience",)),
    Mutant("watchdog-waits-on-what-bills", WATCHDOG, "LETTING_GO_S if bills else", "LETTING_GO_S + LINGER_S if bills else", (f"{DOG}::test_an_owner_is_given_longer_only_where_nothing_bills_any_more",)),
    Mutant("leaving-is-of-the-patience", LEASE, "(0.0 if lingers else now - before)", "(now - before)", (f"{RULES}::test_a_disk_that_outlives_a_slow_machine_has_the_whole_patience_once_it_can_be_asked",)),
    Mutant("wall-clock-ages-things", HOLDINGS, "    return counted if since < 0 else min(since, counted)\n", "    return since\n", (f"{HELD}::test_a_thing_is_never_older_than_what_passed",)),
    Mutant("counted-before-the-restart", HOLDINGS, "(born_ms if held.monotonic_ms >= born_ms else 0)", "born_ms", (f"{HELD}::test_a_thing_is_never_older_than_what_passed",)),
    Mutant("a-new-disk-not-shown-is-gone", HOLDINGS, "    id = id if id in held.born else held.born_with.get(id, \"\")\n", "", (f"{HELD}::test_a_disk_is_as_old_as_the_machine_that_it_came_with",)),
    Mutant("gone-at-last-and-not-looked-at-twice", LEASE, "                lingers = True\n", "                lingers = False\n", (f"{RULES}::test_what_went_when_patience_was_nearly_over_is_looked_at_twice_all_the_same",)),
    # -- the watchdog ----------------------------------------------------------------------------------------------------
    Mutant("watchdog-spares-the-overdue", WATCHDOG, "            os.kill(owner, signal.SIGKILL)\n", "            pass\n", (f"{DOG}::test_an_owner_that_hangs_is_killed_even_if_the_clock_was_set_back",)),
    Mutant("watchdog-kills-strangers", WATCHDOG, "left <= 0 and os.getppid() == owner and", "left <= 0 and", (f"{DOG}::test_an_overdue_holder_that_is_not_its_parent_is_spared",)),
    Mutant("watchdog-kills-who-lets-go", WATCHDOG, " and left <= -_time_to_let_go(folder)", "", (f"{DOG}::test_an_overdue_owner_that_is_letting_go_is_given_time_to_say_how_it_went",)),
    Mutant("drill-leaves-at-a-signal", "provisioner/drill/one.py", "if folder is not None and not over:", "if folder is not None and row.wrong:", ("tests/drill/test_drill.py::test_a_signal_in_the_middle_of_a_drill_lets_go_of_the_machine_that_nobody_else_would",)),
    Mutant("watchdog-takes-a-drop-for-the-end", WATCHDOG, "for e in entries[asked:]):", "for e in entries):", (f"{DOG}::test_an_owner_that_let_go_of_one_machine_and_asked_for_the_next_is_not_letting_go",)),
    Mutant("watchdog-believes-the-wall", WATCHDOG, "        left = late.left() or 0.0\n", "        left = (late.deadline or 0.0) - time.time()\n", (f"{DOG}::test_an_owner_that_hangs_is_killed_even_if_the_clock_was_set_back",)),
    Mutant("a-watchdog-that-ended-is-not-missed", GUARDS, "        if (ended := watchdog.ended(pid)) is None or", "        if True or (ended := watchdog.ended(pid)) is None or", (f"{GUARDED}::test_another_takes_the_place_of_a_watchdog_that_ended",)),
    Mutant("nobody-tends-the-watchdog", "provisioner/life.py", "            self.tend()\n", "", (f"{GUARDED}::test_every_wait_of_a_run_looks_after_the_watchdog",)),
    Mutant("watchdog-in-the-owners-group", WATCHDOG, "            start_new_session=True,\n", "            start_new_session=False,\n", (f"{GUARDED}::test_a_watchdog_is_a_session_of_its_own_and_is_journalled_once_it_watches",)),
    Mutant("watchdog-ends-on-sigterm", WATCHDOG, "signal.SIGHUP, signal.SIGTERM)", "signal.SIGHUP)", (f"{DOG}::test_no_signal_but_sigkill_ends_it",)),
    Mutant("watchdog-not-read-back", WATCHDOG, "        if not ready or said.readline() != READY:\n", "        if not ready:\n", (f"{GUARDED}::test_a_watchdog_that_does_not_say_that_it_watches_is_an_error",)),
    Mutant("watchdog-stops-at-damage", WATCHDOG, " and not before.broken:\n", " or before.broken:\n", (f"{DOG}::test_a_journal_that_came_to_harm_does_not_keep_the_machine",)),
    Mutant("watchdog-stops-at-an-empty-journal", WATCHDOG, "            if not before.entries and not folder.has_card:\n", "            if not before.entries:\n", (f"{DOG}::test_a_journal_that_came_to_harm_does_not_keep_the_machine",)),
    Mutant("watchdog-gives-up-at-an-error", WATCHDOG, "            if time.time() > overdue + PATIENCE_S:\n                raise\n", "            raise\n", (f"{DOG}::test_what_is_put_right_later_is_taken_up_then",)),
    Mutant("watchdog-trusts-any-verdict", WATCHDOG, "before.held.verdict is Verdict.RELEASED and", "before.held.verdict is not None and", (f"{DOG}::test_an_owner_that_gave_up_is_followed_up",)),
    # -- the scope: time and signals -------------------------------------------------------------------------------------
    Mutant("twin-clock-ignored", SCOPE, "        return min(self.deadline - self._now(), self._twin_deadline - self._twin())\n", "        return self.deadline - self._now()\n", (f"{SCOPES}::test_a_wall_clock_set_back_buys_no_time", f"{SCOPES}::test_either_clock_ends_it")),
    Mutant("wall-clock-ignored", SCOPE, "        return min(self.deadline - self._now(), self._twin_deadline - self._twin())\n", "        return self._twin_deadline - self._twin()\n", (f"{SCOPES}::test_either_clock_ends_it",)),
    Mutant("sleep-is-not-woken", SCOPE, "            time.sleep(min(rest, NAP_S))\n", "            time.sleep(rest)\n", (f"{SCOPES}::test_a_signal_wakes_a_sleep",)),
    Mutant("a-signal-can-raise", SCOPE, "        with contextlib.suppress(OSError, ValueError):  # after", "        if True:  # after", (f"{SCOPES}::test_a_signal_never_raises_where_there_is_nobody_left_to_tell",)),
    Mutant("a-cry-can-raise", SCOPE, "    with contextlib.suppress(OSError):\n        os.write(2", "    if True:\n        os.write(2", (f"{SCOPES}::test_crying_to_a_closed_terminal_is_silent",)),
    Mutant(
        "a-signal-can-hang-the-sleeper", SCOPE, "            time.sleep(min(rest, NAP_S))\n", "            self._event.wait(min(rest, NAP_S))\n",
        (f"{SCOPES}::test_no_instant_of_a_sleep_is_a_bad_one_for_a_signal",),
        also=(
            ("        self._over = True  # a plain", "        self._over = True\n        self._event.set()  # a plain"),
            ("        self._over = False\n", "        self._over = False\n        import threading\n\n        self._event = threading.Event()\n"),
        ),
    ),
    Mutant("the-last-reason-wins", SCOPE, "        self.reason = self.reason or reason\n", "        self.reason = reason\n", (f"{SCOPES}::test_the_first_reason_stays",)),
    # -- the run, its guards, its exit code ------------------------------------------------------------------------------
    Mutant("no-deadline", RUN, "            scope.limit(instant(deadline) - min(TEARDOWN_S, plan.max_seconds / 20))\n", "", (f"{RUNS}::test_the_deadline_ends_a_run_before_the_machine_has_to",)),
    Mutant("a-bug-hides-the-money", RUN, "        except Exception as e:\n            # A bug of ours.", "        except ZeroDivisionError as e:\n            # A bug of ours.", (f"{RUNS}::test_a_bug_does_not_hide_what_may_still_cost",)),
    Mutant("error-outranks-money", CLOSING, "    if verdict in MONEY:\n        return MONEY[verdict]\n", "    if verdict in MONEY and error is None:\n        return MONEY[verdict]\n", (f"{CLOSINGS}::test_what_may_still_cost_outranks_what_went_wrong",)),
    Mutant("unrecorded-is-released", CLOSING, "        return Exit.UNPROVEN  # gone", "        pass  # gone", (f"{CLOSINGS}::test_gone_but_not_recorded_is_not_proven",)),
    Mutant("leaving-outranks-held", CLOSING, "(Verdict.HELD, Verdict.UNPROVEN, Verdict.LEAVING) if", "(Verdict.LEAVING, Verdict.HELD, Verdict.UNPROVEN) if", (f"{CLOSINGS}::test_of_several_leases_the_one_that_costs_is_the_exit_code",)),
    Mutant("a-paper-takes-the-place-of-the-verdict", CLOSING, "    except Exception as e:\n        # The program", "    except ZeroDivisionError as e:\n        # The program", (f"{CLOSINGS}::test_files_that_cannot_be_read_cost_the_paper_only",)),
    Mutant("unknown-price-is-an-error", CLOSING, "    except (LookupError, ValueError, TypeError):\n        return None", "    except ZeroDivisionError:\n        return None", (f"{CLOSINGS}::test_no_journal_is_too_odd_to_conclude",)),
    Mutant("lost-journal-means-nothing-was-rented", CLOSING, "    return held.asked or held.rebuilt or held.elsewhere or bool(held.resources)\n", "    return held.asked\n", (f"{CLOSINGS}::test_what_may_be_running_is_never_told_as_nothing_was_rented",)),
    Mutant("only-the-card-says-where", CLOSING, '    said = genesis if "provider" in genesis and "settings" in genesis else folder.card()\n', "    said = folder.card()\n", (f"{LEDGERS}::test_a_lost_card_is_made_up_for_by_the_journal",)),
    Mutant("a-guard-that-fails-is-a-note", GUARDS, "            raise RunError(\n", "            RunError(\n", (f"{GUARDED}::test_a_guard_that_does_not_stand_is_an_error_by_its_name",)),
    Mutant("waived-by-any-name", GUARDS, "        elif name in waived:\n", "        elif waived:\n", (f"{GUARDED}::test_only_its_own_name_waives_it",)),
    Mutant("watchdog-waived-by-any-name", GUARDS, '    if "watchdog" in waived:\n', "    if waived:\n", (f"{GUARDED}::test_the_watchdog_is_waived_by_its_own_name_only",)),
    Mutant("no-power-off-is-one-guard", GUARDS, "            return (name,)\n    return GUEST\n", '            return (name,)\n    return ("guest-timer",)\n', (f"{GUARDED}::test_without_the_power_off_none_of_them_stands",)),
    Mutant("any-guard-may-be-waived", GUARDS, "    unknown = [name for name in waived if name not in NAMES]\n", "    unknown: list[str] = []\n", (f"{GUARDED}::test_a_guard_that_nobody_knows_cannot_be_waived",)),
    # -- reap ------------------------------------------------------------------------------------------------------------
    Mutant("reap-any-tag", REAP, " and ledger.LEASE_ID.fullmatch(resource.lease):\n", " and resource.lease:\n", (f"{REAPS}::test_a_tag_in_another_shape_is_not_ours",)),
    Mutant("reap-what-begins-like-ours", REAP, "ledger.LEASE_ID.fullmatch(resource.lease)", "ledger.LEASE_ID.match(resource.lease)", (f"{REAPS}::test_a_tag_in_another_shape_is_not_ours",)),
    Mutant("a-region-not-seen-is-nothing", REAP, "        return due + [Verdict.UNPROVEN] * bool(self.unseen)\n", "        return due\n", (f"{REAPS}::test_a_region_that_cannot_be_seen_is_said_and_does_not_keep_the_others",)),
    Mutant("no-region-seen-is-nothing", REAP, "        raise next(iter(failed.values()))\n", "        pass\n", (f"{REAPS}::test_a_list_that_cannot_be_had_is_an_error_and_not_an_empty_list",)),
    Mutant("known-by-tag-alone-not-settled", LEASE, "held.rebuilt or held.elsewhere\n        needed", "held.rebuilt\n        needed", (f"{REAPS}::test_what_is_known_by_its_tag_alone_is_released_after_the_settle_time_and_the_proof_says_so",)),
    Mutant("known-by-tag-alone-is-clean", "provisioner/evidence/findings.py", '        and not history.genesis.get("elsewhere")', '        # and not history.genesis.get("elsewhere")', (f"{REAPS}::test_what_is_known_by_its_tag_alone_is_released_after_the_settle_time_and_the_proof_says_so",)),
    Mutant("a-lease-of-another-machine-asked-nothing", LEASE, "not begun.rebuilt and not begun.elsewhere and", "not begun.rebuilt and", (f"{REAPS}::test_a_reap_that_died_before_it_saw_anything_did_not_ask_for_nothing",)),
    Mutant("sorted-by-nobody", "provisioner/providers/aws_kind.py", "        if self.filters and not self.by_key:\n            return True\n", "        return True\n", ("tests/aws/test_aws_inventory.py::test_kinds_that_ec2_cannot_sort_by_tag_are_sorted_here",)),
    Mutant("a-no-in-the-body-is-a-yes", "provisioner/providers/aws.py", "        if kind.ends is not None and (failed := kind.ends(answer.data)):\n", "        if kind.ends is not None and (failed := []):\n", ("tests/aws/test_aws_inventory.py::test_a_removal_that_answers_yes_and_says_no_is_not_taken_for_a_yes",)),
    Mutant("reap-what-is-in-time", REAP, 'bool(deadline) and now > instant(deadline) + overdue_s', 'bool(deadline)', (f"{REAPS}::test_what_is_overdue_goes_and_what_is_in_time_stays",)),
    Mutant("reap-before-the-others-had-their-turn", REAP, "now > instant(deadline) + overdue_s", "now > instant(deadline)", (f"{REAPS}::test_what_is_overdue_goes_and_what_is_in_time_stays",)),
    Mutant("reap-what-is-held-here", REAP, "    if folder.path.is_dir() and ledger.alive(folder):\n", "    if False:\n", (f"{REAPS}::test_what_a_process_here_holds_is_not_touched_even_if_named",)),
    Mutant("reap-more-than-was-named", REAP, "{lease: resources for lease, resources in by_lease.items() if lease in wanted}", "by_lease", (f"{REAPS}::test_a_lease_is_named_by_its_id_or_an_end_that_no_other_has_and_only_it_goes",)),
    Mutant("reap-unasked", REAP, "    if go and (due := [one for one in found if one.due]):\n", "    if due := [one for one in found if one.due]:\n", (f"{REAPS}::test_dry_it_touches_nothing",)),
    Mutant("reap-stops-at-the-first-trouble", REAP, "    except (GpuleaseError, OSError) as e:\n", "    except ZeroDivisionError as e:\n", (f"{REAPS}::test_one_lease_whose_files_are_in_the_way_does_not_keep_the_others",)),
    Mutant("reap-believes-the-journal-alone", REAP, "            journal.note(\"observe\", body_of(resource))", "            pass", (f"{REAPS}::test_a_journal_that_knows_nothing_does_not_outweigh_what_the_provider_shows",)),
    # -- one offer after the other: only where that can help, never beside a machine that may be there --------------------------
    Mutant("every-refusal-goes-on", LAUNCHING, "            except (NoCapacity, GivenUp) as e:\n", "            except (NotCreated, GivenUp) as e:\n", (f"{LAUNCHES}::test_any_other_refusal_is_the_same_everywhere",)),
    Mutant("a-lost-answer-goes-on", LAUNCHING, "            except (NoCapacity, GivenUp) as e:\n", "            except (ProviderError, GivenUp) as e:\n", (f"{LAUNCHES}::test_a_lost_answer_is_followed_by_nothing",)),
    Mutant("given-up-is-never-launched", CLOSING, "        case _ if not launched(entries):\n", "        case _ if not launched(entries) or isinstance(error, NotCreated):\n", (f"{LAUNCHES}::test_a_run_that_had_a_machine_is_never_said_to_have_launched_none",)),
    Mutant("refused-after-the-launch-is-4", CLOSING, "        case NotCreated() | RefusedError() if launched(journal.entries):\n", "        case NotCreated() | RefusedError() if False:\n", (f"{LAUNCHES}::test_a_login_refused_while_the_machine_starts_is_no_refusal_to_launch",)),
    Mutant("guards-of-another-machine", CLOSING, "            seen.clear()  # what stands", "            pass  # what stands", (f"{CLOSINGS}::test_a_guard_that_stood_on_one_machine_is_not_told_of_the_next",)),
    Mutant("drill-forgets-a-journal", "provisioner/drill/live.py", "    return stands.open or bool(stands.broken)\n", "    return False\n", ("tests/drill/test_live.py::test_the_journal_of_a_machine_not_seen_gone_is_kept",)),
    Mutant("dear-offers-asked-for", LAUNCHING, "    if most > life.plan.budget_micro_usd:\n", "    if False:\n", (f"{LAUNCHES}::test_an_offer_that_the_budget_no_longer_covers_is_not_asked_for",)),
    Mutant("priced-as-the-first", LAUNCHING, "        quote=quote.rates(),\n", "        quote=life.plan.quote.rates(),\n", (f"{LAUNCHES}::test_each_intent_holds_the_prices_of_its_own_offer",)),
    Mutant("dear-offers-planned", "provisioner/plan.py", "            elif (most := quote.at_most(seconds)) > budget:\n", "            elif (most := quote.at_most(seconds)) > budget * 1000:\n", ("tests/core/test_plan.py::test_a_dearer_offer_comes_in_only_where_the_budget_covers_it_until_the_deadline",)),
    Mutant("spot-at-the-market", "cost/quote.py", "        return sum(line.cost(deadline_seconds + self.tail_seconds) for line in self.lines)\n", "        return sum(line.usual(deadline_seconds + self.tail_seconds) for line in self.lines)\n", ("tests/core/test_plan.py::test_a_spot_machine_is_expected_at_the_market_and_bounded_by_its_ceiling",)),
    Mutant("dropped-without-a-look", LEASE, "            if resource.phase in (Phase.LEAVING, Phase.GONE):\n                return\n            _ask(self.id, resource, self.provider, self.journal, tell)\n", "            _ask(self.id, resource, self.provider, self.journal, tell)\n            return\n", (f"{RULES}::test_a_machine_that_does_not_go_is_followed_by_no_other",)),
    # -- the launch: asked for is not made, the user's group is read, the first host key is worth nothing ------------------
    Mutant("user-data-not-compared", READ_BACK, '    expect("user-data", user_data_digest(attributes.get("userData")), _digest(asked.get("UserData", Secret("")).reveal_bytes()))\n', '', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("image-not-compared", READ_BACK, '    expect("image", instance.get("ImageId"), asked["ImageId"])\n', '', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("shutdown-behaviour-not-compared", READ_BACK, '    expect("on shutdown", attributes.get("instanceInitiatedShutdownBehavior"), asked["InstanceInitiatedShutdownBehavior"])\n', '', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("hop-limit-not-compared", READ_BACK, '    expect("instance metadata hop limit", metadata.get("HttpPutResponseHopLimit"), wanted["HttpPutResponseHopLimit"])\n', '', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("profile-not-compared", READ_BACK, '    expect("instance profile", instance.get("IamInstanceProfile"), asked.get("IamInstanceProfile"))\n', '', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("encryption-not-compared", READ_BACK, '        expect(f"encryption of {name}", volume.get("Encrypted"), True)\n', '', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("size-not-compared", READ_BACK, '            expect(f"size of {name} in GiB", volume.get("Size"), ebs["VolumeSize"])\n', '', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("groups-not-compared", READ_BACK, '        expect(f"groups of interface {name}", [g.get("GroupId") for g in interface.get("Groups", [])], wanted["Groups"])\n', '', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("ingress-not-compared", READ_BACK, '    if rules is not None:\n', '    if not rules and rules is not None:\n', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("interface-tags-not-compared", READ_BACK, '        _tags(expect, str(interface.get("NetworkInterfaceId")), tagged, _asked_tags(asked, "network-interface"))\n', '        pass\n', (f"{READS}::test_each_difference_alone_is_told",)),
    Mutant("persistent-spot-accepted", READ_BACK, '    expect("kind of the spot request", request.get("Type"), wanted["SpotInstanceType"])\n', '', (f"{READS}::test_each_difference_of_a_spot_request_alone_is_told",)),
    Mutant("spot-ceiling-not-compared", READ_BACK, '    expect("ceiling of the spot request", _decimal(request.get("SpotPrice")), _decimal(wanted["MaxPrice"]))\n', '', (f"{READS}::test_each_difference_of_a_spot_request_alone_is_told",)),
    Mutant("open-to-everybody-accepted", NETWORK, '    if wide := [str(network) for network in networks if network.prefixlen < (8 if network.version == 4 else 16)]:', '    if wide := []:', ("tests/aws/test_aws_network.py::test_a_group_of_the_users_lets_us_in_and_not_everybody",)),
    Mutant("larger-disk-than-quoted", "provisioner/providers/aws_launch.py", '    if spec.disk_gib < image.root_gib:\n', '    if False:\n', ("tests/aws/test_aws_create.py::test_a_disk_is_never_larger_than_what_was_quoted",)),
    Mutant("old-host-key-goes-on", HOSTKEY, '            host.reconnect(fresh)\n', '            host.reconnect()\n', (f"{HOSTKEYS}::test_a_machine_that_goes_on_showing_the_old_key_is_not_used",)),
    Mutant("same-host-key-accepted", HOSTKEY, '    if fresh == keys.public_line(pinned):\n', '    if False:\n', (f"{HOSTKEYS}::test_a_rotation_that_fails_is_an_error",)),
    Mutant("injected-key-kept", HOSTKEY, '    (folder / "host_ed25519").unlink(missing_ok=True)\n', '', (f"{HOSTKEYS}::test_the_injected_private_key_leaves_the_lease_too",)),
    # -- offers: ceilings, prices, quotas ---------------------------------------------------------------------------------
    Mutant("spot-above-its-ceiling", OFFERED, "    if history is not None and history.now > price.micro_usd_per_hour:\n", "    if False:\n", (f"{SURVEYS}::test_a_spot_offer_costs_at_most_the_ceiling_and_shows_the_market",)),
    Mutant("spot-at-its-ceiling-is-out", OFFERED, "history.now > price.micro_usd_per_hour", "history.now >= price.micro_usd_per_hour", (f"{SURVEYS}::test_a_market_exactly_at_the_ceiling_is_in",)),
    Mutant("the-market-is-the-ceiling", OFFERED, "        price=price,\n", "        price=price if history is None else replace(price, micro_usd_per_hour=history.now),\n", (f"{SURVEYS}::test_a_spot_offer_costs_at_most_the_ceiling_and_shows_the_market",)),
    Mutant("the-profiles-ceiling-is-ignored", OFFERED, "    if need.spot_max_micro_usd is not None:\n", "    if False:\n", (f"{SURVEYS}::test_a_spot_offer_costs_at_most_the_ceiling_and_shows_the_market",)),
    Mutant("no-market-is-a-market", OFFERED, "    if spot and place.spot is not None and zone is not None and history is None:\n", "    if False:\n", (f"{SURVEYS}::test_a_market_that_could_not_be_asked_is_unknown_and_counts_as_the_ceiling",)),
    Mutant("a-quota-too-small-is-offered", OFFERED, "    if quota.allows(type.vcpus) is False:\n", "    if False:\n", (f"{SURVEYS}::test_a_quota_that_is_too_small_puts_the_offer_out_with_the_numbers_and_the_way_to_ask_for_more",)),
    Mutant("dear-before-cheap", OFFERED, "        return way, line.expected,", "        return way, -line.expected,", (f"{SURVEYS}::test_the_way_to_buy_that_is_preferred_comes_first_and_then_the_cheapest",)),
    Mutant("the-other-way-to-buy-first", OFFERED, "        return way, line.expected,", "        return -way, line.expected,", (f"{SURVEYS}::test_the_way_to_buy_that_is_preferred_comes_first_and_then_the_cheapest",)),
    Mutant("what-stands-beside-may-be-unknown", OFFERED, "    if isinstance(place.beside, Unknown):\n", "    if False:\n", (f"{SURVEYS}::test_each_region_is_priced_by_itself_or_is_out",)),
    Mutant("unknown-quota-is-ok", QUOTED, "        return None if self.limit is None or self.used is None else True\n", "        return True\n", (f"{SURVEYS}::test_a_quota_allows_only_what_both_figures_say",)),
    Mutant("unknown-use-is-none", QUOTED, "        return None if self.limit is None or self.used is None else True\n", "        return None if self.limit is None else True\n", (f"{SURVEYS}::test_a_quota_allows_only_what_both_figures_say",)),
    Mutant("a-quota-counts-only-what-runs", QUOTED, "vcpus + (self.used or 0) > self.limit", "(self.used or 0) > self.limit", (f"{SURVEYS}::test_a_quota_allows_only_what_both_figures_say",)),
    Mutant("a-price-cut-towards-zero", PRICED, "    return math.ceil(Decimal(text) * cost.MICRO)", "    return int(Decimal(text) * cost.MICRO)", (f"{SURVEYS}::test_money_is_read_exactly_and_rounded_up",)),
    Mutant("one-region-stands-for-all", PRICED, '    if region != catalog()["region"]:\n', "    if False:\n", (f"{OLD_PRICES}::test_an_unknown_price_is_out_and_not_zero",)),
    Mutant("a-price-never-gets-too-old", PRICED, "    if cost.is_too_old(price.as_of, today):\n", "    if False:\n", (f"{OLD_PRICES}::test_a_snapshot_says_its_age_and_is_none_after_a_year",)),
    Mutant("of-two-prices-any", PRICED, "    if len(found) > 1:\n", "    if False:\n", (f"{PRICES}::test_no_price_zero_and_two_prices_are_unknown",)),
    Mutant("free-is-a-price", PRICED, '_rates(account, "AmazonEC2", wanted, "Hrs") if rate > 0}', '_rates(account, "AmazonEC2", wanted, "Hrs")}', (f"{PRICES}::test_no_price_zero_and_two_prices_are_unknown",)),
    Mutant("a-product-nobody-asked-for", PRICED, "        if any(about.get(field) != value for field, value in wanted.items()) or", "        if False or", (f"{PRICES}::test_a_product_that_was_not_asked_for_is_no_price_even_if_the_list_sends_it",)),
    Mutant("another-currency-is-dollars", PRICED, "    if None in found or len(found) != len(dimensions):\n", "    if False:\n", (f"{PRICES}::test_a_product_that_cannot_be_read_is_an_error_and_no_price",)),
    Mutant("the-cheapest-tier-counts", PRICED, "    return UnitPrice(max(found),", "    return UnitPrice(min(found),", (f"{PRICES}::test_of_several_tiers_of_traffic_the_dearest_counts",)),
    Mutant("half-a-spot-history", SPOTTED, "        if not price or not isinstance(at, datetime):\n            raise", "        if not price or not isinstance(at, datetime):\n            continue\n            raise", (f"{SURVEYS}::test_a_spot_price_that_cannot_be_read_is_no_price",)),
    Mutant("the-oldest-price-is-now", SPOTTED, "History(max(points)[1],", "History(min(points)[1],", (f"{SURVEYS}::test_the_newest_entry_is_the_price_now_in_whatever_order_they_come",)),
    Mutant("a-part-is-a-gpu", TYPED, "    if type.part is not None:\n", "    if False:\n", (f"{SURVEYS}::test_a_part_of_an_l4_is_known_by_its_memory_whatever_ec2_counts",)),
    Mutant("ec2s-count-of-parts", TYPED, "    if mib is not None and whole is not None and mib * 100 < whole * 95:\n", "    if False:\n", (f"{SURVEYS}::test_a_part_of_an_l4_is_known_by_its_memory_whatever_ec2_counts",)),
    Mutant("ec2s-memory-is-the-drivers", TYPED, "    if type.vram_mib is None:\n", "    if type.vram_mib is None and not type.ec2_mib:\n", (f"{SURVEYS}::test_a_type_that_only_ec2_knows_shows_ec2s_memory_and_meets_no_need_for_memory",)),
    # -- the guard at AWS: right, looked at, and the last to go ------------------------------------------------------------
    Mutant("guard-removed-with-the-machine", LEASE, "        due = [r for r in left if r.billed] or (left if sure else [])\n", "        due = left\n", (f"{AT_AWS}::test_it_is_armed_read_back_and_removed_once_the_machine_is_seen_gone",)),
    Mutant("schedule-not-compared", SCHEDULE, "        elif asked != seen:\n", "        elif False:\n", (f"{AT_AWS}::test_any_difference_that_is_read_back_is_a_sentence",)),
    Mutant("schedule-at-the-deadline", SCHEDULE, "datetime.fromisoformat(deadline).timestamp() + late_s, UTC)", "datetime.fromisoformat(deadline).timestamp(), UTC)", (f"{AT_AWS}::test_what_is_asked_for_is_a_termination_three_minutes_after_the_deadline",)),
    Mutant("role-may-end-anything", SCHEDULE, '                "Condition": {"StringEquals": {"aws:ResourceTag/gpulease:managed": "true"}},\n', "", (f"{AT_AWS}::test_the_role_may_end_what_carries_our_tag_and_nothing_else",)),
    Mutant("anybody-may-take-the-role-on", SCHEDULE, '                "Condition": {"StringEquals": {"aws:SourceAccount": account}},\n', "", (f"{AT_AWS}::test_only_the_scheduler_of_this_account_may_take_the_role_on",)),
    Mutant("not-prepared-is-good-enough", SCHEDULE, '    if shown.get("State") != "ACTIVE":\n', "    if False:\n", (f"{AT_AWS}::test_a_region_that_was_not_prepared_is_refused_with_the_command_that_prepares_it",)),
    Mutant("not-read-back-is-good-enough", GUARDS, "            if pause is None or isinstance(e, NotPermitted):\n                return (", "            if pause is None or isinstance(e, NotPermitted):\n                return () and (", (f"{AT_AWS}::test_one_that_is_not_armed_or_cannot_be_read_back_lets_go_of_the_machine",)),
    Mutant("schedules-need-not-be-listed", SCHEDULE, "        return [], Looked(KIND, account.region, checked=False, reason=e.what), answers\n", "        return [], Looked(KIND, account.region), answers\n", (f"{AT_AWS}::test_who_may_not_list_schedules_and_made_one_has_not_looked",)),
    Mutant("init-undone-under-a-live-lease", "provisioner/providers/aws_init.py", "        self._refuse_while_armed([piece for piece in pieces if piece.state in (THERE, DIFFERENT)])\n", "", (f"{AT_AWS}::test_init_is_not_undone_while_a_schedule_may_still_have_a_machine_to_end",)),
    # -- logins and drills -------------------------------------------------------------------------------------------------
    Mutant("unknown-login-is-enough", LOGIN, "    if left is not None and left >= needs:\n", "    if left is None or left >= needs:\n", (f"{LOGINS}::test_a_guard_at_the_provider_lets_a_short_login_run_and_says_what_happens",)),
    Mutant("a-login-needs-no-margin", LOGIN, "    needs = run_s + LETTING_GO_S\n", "    needs = run_s\n", (f"{LOGINS}::test_a_guard_at_the_provider_lets_a_short_login_run_and_says_what_happens",)),
    Mutant("stopped-look-is-waited-for", SCOPE, "threads.shutdown(wait=not stopped, cancel_futures=stopped)", "threads.shutdown()", ("tests/cli/test_signals.py::test_a_look_for_forgotten_leases_ends_at_once_however_many_answers_are_still_to_come",)),
    Mutant("boundary-not-said", "provisioner/providers/aws_schedule.py", "    return arn, bounded(role)\n", '    return arn, ""\n', (f"{AT_AWS}::test_a_boundary_around_the_role_is_a_doubt_that_a_run_init_and_doctor_say",)),
    Mutant("renewed-keys-are-not-read", CLIENT, "                    forget()\n        return found\n", "                    pass\n        return found\n", (f"{LOGINS}::test_whoever_lets_go_uses_the_keys_that_somebody_renewed_meanwhile",)),
    Mutant("short-times-for-a-real-cloud", TIMES, '    text = environment.get(NAME, "") if simulated else ""\n', '    text = environment.get(NAME, "")\n', ("tests/core/test_times.py::test_a_real_cloud_never_looks_at_the_variable",)),
    Mutant("any-layer-will-do", DRILL, "    if row.ended_by != layer.name:\n", "    if False:\n", (f"{DRILLS}::test_a_machine_that_another_layer_ended_is_no_proof_of_this_one",)),
    Mutant("a-false-proof-is-fine", DRILL, "== \"released\" and bool(left), ", "== \"released\" and False, ", (f"{DRILLS}::test_a_proof_that_the_cloud_contradicts_is_false",)),
    Mutant("nobody-is-somebody", DRILL, '        row.wrong.append(f"nobody ended {row.machine}, {ground.late_s:.0f} s after its time")\n        return\n', "        return\n", (f"{DRILLS}::test_a_layer_that_does_not_work_is_seen_as_nobody",)),
    # -- what makes machines by itself: before its machine, in every look, paid for from its intent -----------------------
    Mutant("machine-before-its-fleet", LEASE, "key=lambda r: r.kind not in MAKES_MACHINES)]\n", "key=lambda r: r.kind in MAKES_MACHINES)]\n", (f"{FLEETS}::test_the_fleet_is_asked_to_go_before_its_machine_so_there_is_no_second_one",)),
    Mutant("fleet-outlives-a-drop", LEASE, "            if made.kind in MAKES_MACHINES and made.phase is not Phase.GONE:", "            if False:", (f"{FLEETS}::test_a_fleet_goes_first_where_another_machine_is_to_follow",)),
    Mutant("fleet-of-a-given-up-machine-stays", LAUNCHING, "            _let_go_of(life, fleet)  # it might make another", "            pass  # it might make another", ("tests/sim/test_sim.py::test_what_was_found_once_stays_found",)),
    Mutant("a-fleet-that-is-not-found-was-removed", HOLDINGS, '                if body.get("state") != NOT_FOUND:\n', "                if True:\n", (f"{HELD}::test_that_a_fleet_is_not_found_is_no_answer_to_its_removal",)),
    Mutant("what-came-with-it-is-not-waited-for", LEASE, " >= needed and young <= 0 and not held.rebuilt", " >= needed and not held.rebuilt", ("tests/sim/test_sim.py::test_what_was_found_once_stays_found",)),
    Mutant("not-found-is-a-removal", HOLDINGS, "[] if body.get(\"state\") else [body[\"id\"]]", "[body[\"id\"]]", ("tests/sim/test_sim.py::test_what_was_found_once_stays_found",)),
    Mutant("replacement-not-waited-for", HOLDINGS, "                    held.unfilled.add(resource.token)  # its machine went", "                    pass  # its machine went", (f"{HELD}::test_a_fleet_whose_machine_went_before_it_may_have_another_on_its_way",)),
    Mutant("any-sight-of-it-fills-a-fleet", HOLDINGS, "if new and resource.kind not in MAKES", "if resource.kind not in MAKES", (f"{HELD}::test_a_fleet_whose_machine_went_before_it_may_have_another_on_its_way",)),
    Mutant("unfilled-fleet-not-waited-for", LEASE, "        hidden = held.intents or held.unfilled or ", "        hidden = held.intents or ", (f"{FLEETS}::test_a_fleet_of_which_no_machine_was_seen_is_waited_for_as_long_as_a_lost_answer",)),
    Mutant("any-fleet-was-a-machine", CLOSING, " and not (r.kind in MAKES_MACHINES and r.phase is Phase.GONE)", "", (f"{FLEETS}::test_a_fleet_of_which_no_machine_was_seen_is_waited_for_as_long_as_a_lost_answer",)),
    Mutant("fleets-not-in-the-look", "provisioner/providers/aws_look.py", "for account in accounts for kind in LAUNCHERS)", "for account in accounts for kind in LAUNCHERS if whole)", ("tests/aws/test_aws_inventory.py::test_what_we_never_make_is_not_listed_again_while_what_we_make_is_there",)),
    Mutant("a-fleets-machine-answers-nothing", "provisioner/providers/aws_look.py", 'return replace(r, token=fleets.get(str(r.facts["fleet"])))', "return replace(r, token=None)", (f"{FLEET_LAUNCH}::test_a_lost_answer_is_found_by_tag_and_token",)),
    Mutant("a-fleet-costs-nothing", METER, '            if body.get("class") in (*MACHINES, *DISKS, *MAKERS):\n', '            if body.get("class") in (*MACHINES, *DISKS):\n', (f"{METERED}::test_a_fleet_may_cost_what_its_machine_does_until_that_is_seen",)),
    Mutant("a-fleets-second-machine-has-no-price", METER, ' or makers.get(str(body.get("token")))', "", (f"{METERED}::test_a_fleet_that_made_two_is_paid_for_twice",)),
    Mutant("fleet-leaves-its-machine", "provisioner/providers/aws_fleet.py", '        "TerminateInstancesWithExpiration": True,\n        "LaunchTemplateConfigs"', '        "TerminateInstancesWithExpiration": False,\n        "LaunchTemplateConfigs"', (f"{FLEET_LAUNCH}::test_the_template_holds_all_that_keeps_a_machine_from_outliving_its_lease",)),
    Mutant("fleet-of-another-end-is-a-guard", "provisioner/providers/aws_fleet.py", " for name, value in wanted.items() if seen[name] != value]", ' for name, value in wanted.items() if seen[name] != value and name != "ValidUntil"]', (f"{FLEET_LAUNCH}::test_a_fleet_that_is_no_guard_is_told_so_by_each_of_its_fields",)),
    Mutant("any-trouble-is-want-of-room", "provisioner/providers/aws_fleet.py", "if (code := code_in(text)) in CAPACITY:", "if (code := code_in(text)):", (f"{FLEET_LAUNCH}::test_none_for_want_of_room_is_told_apart_from_none_for_another_reason",)),
    Mutant("next-offer-beside-a-fleet", LAUNCHING, "        except NoCapacity:\n            _let_go_of(life, fleet)\n            raise\n", "        except NoCapacity:\n            raise\n", (f"{LAUNCHES}::test_a_fleet_without_room_is_seen_leaving_before_the_next_is_asked_for",)),
    # -- prices against lists that the owner of the key did not write ----------------------------------------------------------
    Mutant("a-made-up-price-is-fine", LISTPRICE, "            elif claim.micro_usd_per_hour != (q := claim.an_hour(listed.micro_usd)):\n", "            elif (q := claim.an_hour(listed.micro_usd)) < 0:\n", (f"{LISTPRICES}::test_a_price_made_up_before_the_launch_passes_until_aws_is_asked",)),
    Mutant("a-younger-list-contradicts", LISTPRICE, "                older = listed.as_of > claim.day or ", "                older = ", (f"{LISTPRICES}::test_a_list_that_is_younger_than_the_price_contradicts_nothing",)),
    Mutant("no-answer-is-agreement", LISTPRICE, "                said.append(problem(\"W401\", p=usd(claim), sku=claim.name, why=listed))\n", "                pass\n", (f"{LISTPRICES}::test_a_list_without_an_answer_is_said_and_is_no_price",)),
    # -- what is new and not of the run: only ever told, and never called nothing unseen ------------------------------------
    Mutant("a-refused-list-is-whole", UNFILTERED, 'unchecked=f"AWS answered {code}" if code else e.what)', 'tuple(found.values()))', (f"{UNFILTERS}::test_what_may_not_be_listed_is_not_looked_at_and_never_nothing",)),
    Mutant("why-it-failed-comes-before-what-costs", "provisioner/afterwards.py", "    if code in MONEY.values() and not", "    if False and not", ("tests/cli/test_afterwards.py::test_what_may_still_cost_money_is_the_next_step_whatever_went_wrong",)),
    Mutant("an-unseen-kind-had-nothing-before", "provisioner/baseline.py", "        if one.unchecked or place not in before:\n", "        before.setdefault(place, frozenset())\n        if one.unchecked:\n", (f"{UNFILTERS}::test_what_may_not_be_listed_is_not_looked_at_and_never_nothing",)),
    Mutant("half-a-list-is-whole", UNFILTERED, "            if len(found) > most:\n", "            if False:\n", (f"{UNFILTERS}::test_too_many_are_not_looked_at",)),
    Mutant("a-late-answer-is-waited-for", UNFILTERED, "    while len(said) < len(asks) and time.monotonic() < ends:\n", "    while len(said) < len(asks):\n", (f"{UNFILTERS}::test_nobody_waits_for_an_answer_that_does_not_come",)),
    Mutant("any-file-was-the-first-list", "provisioner/baseline.py", '    if _sha256(raw) != taken["sha256"]:\n', "    if False:\n", (f"{UNFILTERS}::test_a_first_list_that_is_another_file_now_is_none",)),
]  # fmt: skip
