/*
 * The lease protocol, small enough to be searched whole: who may create, who lets go, and who is left when others fail.
 *
 * One lease and up to two machines: after a refusal, or when a spot machine was taken back, a run asks again. Its owner, the
 * watchdog on the owner's computer, the machine's own timer and lease file, the schedule at the provider, and reap on another
 * computer. Time is a counter, and a tick passes only when nobody has anything left to do in it: so "by tick n" is a bound.
 * At each start one guard is drawn that will not fail (`sole`). The others may: a process by being killed, or stopped and
 * perhaps continued, between any two of its steps; a guard at the machine or at the provider by being dead from the start.
 *
 * What must hold in every state that can be reached:
 *   P1  no machine runs once its sole guard has had its turn: whichever one is left, it alone is enough     (assert in Clock)
 *   P2  whoever says "released" is right: nothing of the lease is there, and nothing comes to life later    (looks, Provider)
 *   P3  no two processes of one computer handle the lease at the same time                                  (take)
 *
 * What is assumed, by the letters of docs/how-it-lets-go.md:
 *   A  what a create makes is listed at latest DELAY after it was sent, and SETTLE is longer;
 *   B  what was listed once is left out of at most one look of two that follow each other, by list and by id;
 *   C  a provider that does not answer answers again before the patience of whoever asks is spent (FAULTS calls fail);
 *   D  a request is refused once its signature is older than SIGNED, and SIGNED < REAP - DEADLINE;
 *   E  a lock is freed when its holder dies and not before; what was synced to the journal is still there;
 *   F  the schedule is a guard once it was made: of a run that dies between the launch and the schedule, the others are left;
 *   G  one guard does not fail; where that is reap, somebody runs it.
 * Not in the model: a damaged journal, a full disk, what is free of charge, other people's leases. tests/core has those.
 *
 * Each of the words in #ifdef breaks one rule. tests/model/test_model.py shows that a counterexample is found for each.
 */

#define MACHINES 2

#ifdef ONE_LOOK
#define SECOND   0
#else
#define SECOND   1                      /* two empty looks lie apart at least                               */
#endif
#define DELAY    2                      /* a request arrives (1), and what it made is listed (1)            */
#ifdef SHORT_SETTLE
#define SETTLE   1
#else
#define SETTLE   3                      /* empty looks for so long, where the answer to a create was lost   */
#endif
#define STOPS    2                      /* the owner stops by itself, ahead of the deadline                 */
#define DEADLINE 3                      /* the machine's own timer                                          */
#define SILENCE  2                      /* the machine's lease file                                         */
#define OVERDUE  4                      /* the watchdog kills an owner that does not let go                 */
#define LETTING  7                      /* and one that does, so much later                                 */
#define SCHEDULE 5                      /* the schedule at the provider                                     */
#define REAP     6                      /* reap calls it overdue                                            */
#define SIGNED   1                      /* how old a request may be when it arrives                         */
#define FAULTS   1                      /* calls that get no answer, in one history                         */
#define PATIENCE 6                      /* for how long the owner looks                                     */
#define END      17
#define NEVER    255

#ifdef SCHEDULE_AT_FIRST_EMPTY_LOOK
#define SCHEDULE_AFTER 0
#else
#define SCHEDULE_AFTER SECOND
#endif

mtype:thing = { NONE, RUNNING, LEAVING, GONE }
mtype:reply = { WAITING, OK, REFUSED, LOST }
mtype:guard = { OWNER, WATCHDOG, TIMER, LEASEFILE, AT_PROVIDER, REAPER }
mtype:keeper = { NOBODY, BY_OWNER, BY_WATCHDOG }

byte now
mtype:guard sole

/* The provider. */
mtype:thing state[MACHINES] = NONE
byte wire[MACHINES]                     /* ticks until the request arrives; 0: none is on its way           */
byte sent[MACHINES]                     /* when it was signed                                               */
byte late[MACHINES]                     /* ticks until it is listed                                         */
bool scheduled[MACHINES], everScheduled[MACHINES]
mtype:reply reply = WAITING
byte faults = FAULTS

/* The machine's own guards, and who is dead from the start. */
byte silent[MACHINES]
bool timerWorks, leaseFileWorks, scheduleWorks, reapRuns

/* The journal: synced before the next step, read by whoever has the lock. */
bool intent[MACHINES]                   /* asked for, no answer yet                                         */
bool known[MACHINES]                    /* made, and not seen gone                                          */
bool unshown[MACHINES]                  /* made, and not seen yet                                           */
byte born[MACHINES]
bool asked, lettingGo, saidReleased

/* Processes. */
mtype:keeper lock = NOBODY
bool ownerKilled, ownerStopped, ownerOver, dogUp, dogKilled
bool killOwner, stopOwner, killDog      /* will happen in this tick, between any two steps                  */
bool everReleased

#define OURS(m)   (state[m] == RUNNING || state[m] == LEAVING)
#define LISTED(m) (OURS(m) && late[m] == 0)
#define THERE     (OURS(0) || OURS(1))

inline end(m) { if :: state[m] == RUNNING -> state[m] = LEAVING; silent[m] = 0 :: else fi }

inline take(who) { assert(lock == NOBODY); lock = who }

/*
 * One look, and what follows from it. Every machine that is listed, and by id what the journal knows and the list lacks: one
 * that was never shown is not gone before the settle time, it is not there yet. What was seen is asked to go, and where nothing
 * could be seen, what the journal knows; the request may get lost. The schedule goes last. `over` says that "released" was said.
 */
inline look(journal, settle) {
  left = false; failed = false
  if
  :: faults > 0 -> faults--
#ifdef NO_ANSWER_IS_EMPTY
     omit = true
#else
     failed = true
#endif
  :: omit = false
  :: !omit && (LISTED(0) || LISTED(1)) -> omit = true
  fi
  for (i : 0 .. MACHINES - 1) {
    if
    :: failed
    :: !failed && !omit && LISTED(i) ->
#ifdef LEAVING_IS_GONE
       left = left || state[i] == RUNNING
#else
       left = true
#endif
       if :: journal -> known[i] = true; unshown[i] = false; born[i] = 0; intent[i] = false :: else fi
    :: !failed && (omit || !LISTED(i)) ->
       if
       :: journal && known[i] && unshown[i] && now - born[i] < SETTLE -> left = true
       :: journal && known[i] && (omit || !OURS(i)) && !(unshown[i] && now - born[i] < SETTLE) ->
          known[i] = false; unshown[i] = false; born[i] = 0
       :: else
       fi
    fi
  }
  if
  :: failed || left -> quiet = NEVER
  :: else -> if :: quiet == NEVER -> quiet = now :: else fi
  fi
#ifdef SCHEDULE_FIRST
  scheduled[0] = false; scheduled[1] = false
#endif
  if
  :: quiet != NEVER && now - quiet >= SCHEDULE_AFTER -> scheduled[0] = false; scheduled[1] = false
  :: else
  fi
  if
  :: quiet != NEVER && now - quiet >= ((settle || (journal && (intent[0] || intent[1]))) -> SETTLE : SECOND) ->
     assert(!THERE)
     everReleased = true; over = true
     if :: journal -> saidReleased = true :: else fi
  :: else
  fi
  if
  :: faults > 0 && (failed || left) -> faults--
  :: true ->
     for (i : 0 .. MACHINES - 1) {
       if
       :: (!failed && left && !omit && LISTED(i)) || (journal && known[i] && (failed || unshown[i])) -> end(i)
       :: else
       fi
     }
  fi
  i = 0; left = false; failed = false; wake = now + 1
}

/* Look until enough was seen, or the patience is spent. */
inline letGo(journal, patience, settle) {
  quiet = NEVER; began = (patience == END -> 0 : now)
  do
  :: atomic { !over && now - began < patience && now >= wake -> look(journal, settle) }
  :: over || now - began >= patience -> break
#ifdef ERROR_ENDS_IT
  :: now < wake && quiet == NEVER && faults < FAULTS -> break
#endif
  od
  atomic { omit = false; began = 0; quiet = 0; wake = 0 }
}

/* The request arrives at the provider, or is refused, or got lost on its way; and the answer may get lost on its way back. */
active proctype Provider() {
  byte m, age
  do
  :: atomic { wire[0] == 1 || wire[1] == 1 ->
       m = (wire[0] == 1 -> 0 : 1)
       age = now - sent[m]; wire[m] = 0; sent[m] = 0
       if
       :: age > SIGNED -> reply = REFUSED
       :: age <= SIGNED -> reply = REFUSED
       :: age <= SIGNED -> reply = LOST
       :: age <= SIGNED ->
          assert(!everReleased)
          state[m] = RUNNING
          if :: late[m] = 0 :: late[m] = 1 fi
          if :: reply = OK :: reply = LOST fi
       fi
       m = 0; age = 0 }
  od
}

#define GO (!ownerStopped)

/* The run: arm the watchdog, ask, keep renewing, and let go, whatever happens. */
active proctype Owner() {
  byte i, m, began, quiet, wake
  bool failed, left, omit, over
  {
    atomic { GO -> take(BY_OWNER) }
#ifndef GUARD_LATE
    atomic { GO -> dogUp = true }
#endif
    do
    :: atomic { GO && m < MACHINES && now < STOPS -> reply = WAITING }
#ifndef INTENT_LATE
       atomic { GO -> intent[m] = true; asked = true; saidReleased = false }
#endif
#ifndef NO_LAST_CHECK
       if
       :: GO && now >= DEADLINE -> intent[m] = false; break
       :: GO && now < DEADLINE -> sent[m] = now
       fi
#endif
       /* Signed; now it is sent. */
#ifdef NO_LAST_CHECK
       if :: atomic { GO -> sent[m] = now; wire[m] = 1 } :: atomic { GO -> sent[m] = now; wire[m] = 2 } fi
#else
       if :: GO -> wire[m] = 1 :: GO -> wire[m] = 2 fi
#endif
       /* It waits for the answer, but not longer than a tick. */
       if
       :: GO && reply != WAITING
       :: atomic { GO && reply == WAITING && now > sent[m] && wire[m] > 0 -> reply = LOST }
       fi
#ifdef INTENT_LATE
       atomic { GO -> intent[m] = true; asked = true; saidReleased = false }
#endif
       if
       :: reply == OK ->
          atomic { GO -> intent[m] = false; known[m] = true; unshown[m] = true; born[m] = now }
#ifdef GUARD_LATE
          atomic { GO -> dogUp = true }
#endif
          if
          :: atomic { GO -> scheduled[m] = true; everScheduled[m] = true }
          :: GO -> break                                      /* a schedule that cannot be made ends the run */
          fi
          do
          :: atomic { GO && now < STOPS && state[m] == RUNNING && now >= wake -> silent[m] = 0; wake = now + 1 }
          :: GO && now < STOPS && state[m] != RUNNING -> m++; break  /* taken back: another may be asked for */
          :: GO && now >= wake -> m = MACHINES; break                /* the end of the run, or a signal      */
          od
          wake = 0
       :: atomic { reply == REFUSED -> intent[m] = false; m++ }
       :: reply == LOST ->
#ifdef LOST_IS_REFUSED
          intent[m] = false
#endif
          break
       fi
    :: GO && (m == MACHINES || now >= STOPS) -> break
    od
    atomic { GO -> lettingGo = true; reply = WAITING }
    letGo(true, PATIENCE, false)
    GO
  } unless { ownerKilled }
  atomic { if :: lock == BY_OWNER -> lock = NOBODY :: else fi; ownerOver = true }
}

/* Waits for the lock; kills an owner that is overdue; lets go of what was left. */
active proctype Watchdog() {
  byte i, began, quiet, wake
  bool failed, left, omit, over
  {
    dogUp
    do
#ifdef LOCK_NOT_WAITED_FOR
    :: atomic { now >= OVERDUE -> take(BY_WATCHDOG); break }
#endif
    :: atomic { lock == NOBODY && ownerOver -> take(BY_WATCHDOG); break }
#ifndef NO_OVERDUE_KILL
    :: lock == BY_OWNER && now >= OVERDUE + (lettingGo -> LETTING : 0) ->
       ownerKilled = true
       ownerOver
#endif
    od
    if
    :: saidReleased || !asked
    :: else -> letGo(true, END, false)
    fi
  } unless { dogKilled }
  atomic { if :: lock == BY_WATCHDOG -> lock = NOBODY :: else fi }
}

/* From another computer, again and again: what is overdue by its tag. It has no journal, so it always waits for the settle time. */
active proctype Reap() {
  byte i, began, quiet, wake
  bool failed, left, omit, over
  reapRuns
  do
  :: atomic { now >= REAP && (LISTED(0) || LISTED(1)) -> over = false }
     letGo(false, END, true)
  od
}

/* Kills and stops, in the tick that Clock drew, between any two steps of whom they hit. */
active proctype Trouble() {
  do
  :: atomic { killOwner -> killOwner = false; ownerKilled = true }
  :: atomic { stopOwner -> stopOwner = false; ownerStopped = true }
  :: atomic { killDog   -> killDog = false; dogKilled = true }
  od
}

#define TRIES (2 * FAULTS + 2)          /* looks until one is answered and complete, and what it asks for arrives */
#define BOUND ( \
  sole == TIMER       -> DEADLINE : ( \
  sole == LEASEFILE   -> STOPS + SILENCE + 1 : ( \
  sole == AT_PROVIDER -> SCHEDULE : ( \
  sole == REAPER      -> REAP + TRIES : ( \
  sole == WATCHDOG    -> OVERDUE + LETTING + TRIES : \
                         STOPS + 1 + DELAY + TRIES )))))

/* F: a schedule that was never made is no guard. */
#define RUNS_ON(m) (state[m] == RUNNING && (sole != AT_PROVIDER || everScheduled[m]))

#ifdef TIMER_BY_SSH
#define TIMER_SET(m) everScheduled[m]
#else
#define TIMER_SET(m) true
#endif
#define DUE(m) (state[m] == RUNNING && ( \
  (timerWorks && now >= DEADLINE && TIMER_SET(m)) || \
  (leaseFileWorks && silent[m] >= SILENCE) || \
  (scheduleWorks && scheduled[m] && now >= SCHEDULE)))

/* The guards at the machine and at the provider: at the start of the tick in which they are due, or at its end. */
inline fire() {
  if :: DUE(0) -> end(0) :: else fi
  if :: DUE(1) -> end(1) :: else fi
}

/* Time, and what it may bring. A tick passes when nobody has anything left to do in this one. */
active proctype Clock() {
  byte i
  atomic {
    if :: sole = OWNER :: sole = WATCHDOG :: sole = TIMER :: sole = LEASEFILE :: sole = AT_PROVIDER :: sole = REAPER fi
    /* The rest: all dead from the start, or only what runs on the machine, or none. */
    if :: true :: scheduleWorks = true; reapRuns = true :: timerWorks = true; leaseFileWorks = true; scheduleWorks = true; reapRuns = true fi
    timerWorks = timerWorks || sole == TIMER
    leaseFileWorks = leaseFileWorks || sole == LEASEFILE
    scheduleWorks = scheduleWorks || sole == AT_PROVIDER
    reapRuns = reapRuns || sole == REAPER
  }
  do
  :: atomic { timeout ->
       fire()
       assert(now <= BOUND || !(RUNS_ON(0) || RUNS_ON(1)))
       if
       :: now == END || (ownerOver && wire[0] == 0 && wire[1] == 0 && !THERE) -> break
       :: else -> now++
       fi
       for (i : 0 .. MACHINES - 1) {
         if :: wire[i] > 1 -> wire[i]-- :: else fi
         if :: late[i] > 0 -> late[i]-- :: else fi
         if :: state[i] == LEAVING -> state[i] = GONE; late[i] = 0 :: else fi
         if :: state[i] == RUNNING && silent[i] < SILENCE -> silent[i]++ :: else fi
       }
       if :: fire() :: true fi
       if
       :: true
       :: sole != OWNER && !ownerOver && !ownerKilled -> killOwner = true
       :: sole != OWNER && !ownerOver && !ownerKilled && !ownerStopped -> stopOwner = true
       :: ownerStopped -> ownerStopped = false
       fi
       if :: true :: sole != WATCHDOG && !dogKilled && dogUp -> killDog = true fi
       if :: true :: now < STOPS -> end(0) fi                      /* a spot machine that is taken back */
       i = 0 }
  od
}
