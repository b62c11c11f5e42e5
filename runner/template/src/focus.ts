// Which participant is shown large, as Spillway's native compositor decides it (`runner/media/src/compositor/policy/focus.rs`):
// the loudest speaker, after a short delay, so that a cough changes nothing. Pure; times are milliseconds.

// The server says every 300–500 ms who speaks; a rival must be the loudest for so long.
const RIVAL_FOR_MS = 600;
// The large place is kept this long at least.
const STAGE_FOR_MS = 2000;

interface Since {
  identity: string;
  ms: number;
}

export class Focus {
  private stage: Since | undefined;
  // Loudest since then, and not shown large.
  private rival: Since | undefined;

  // Active speakers, loudest first. Silence changes nothing.
  heard(ms: number, identities: string[]): void {
    const loudest = identities[0];
    if (loudest === undefined) {
      this.rival = undefined;
    } else if (this.stage === undefined) {
      this.stage = { identity: loudest, ms };
    } else if (this.stage.identity === loudest) {
      this.rival = undefined;
    } else if (this.rival?.identity !== loudest) {
      this.rival = { identity: loudest, ms };
    }
  }

  // Shown large. `there`: whether a participant has a picture; one without gives the place up at once.
  at(ms: number, there: (identity: string) => boolean): string | undefined {
    const empty = this.stage === undefined || !there(this.stage.identity);
    if (this.rival !== undefined && there(this.rival.identity)) {
      const longEnough = ms - this.rival.ms >= RIVAL_FOR_MS;
      const stageOld = this.stage === undefined || ms - this.stage.ms >= STAGE_FOR_MS;
      if (empty || (longEnough && stageOld)) {
        this.stage = { identity: this.rival.identity, ms };
        this.rival = undefined;
      }
    }
    return this.stage !== undefined && there(this.stage.identity) ? this.stage.identity : undefined;
  }
}
