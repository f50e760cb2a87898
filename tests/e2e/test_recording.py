"""`megace2 record` and `megace2 replay`: a stream that was stored is played again, in either stage."""

import asyncio

import pytest
from tiers import command, corpus, played, process, running, until

from megace2_iot.messages import FeaturePacket, ModelPointer, Prediction
from megace2_iot.recording import read_recording

NO_ROUNDS = {"rounds": False, "adapters": False}


@pytest.mark.parametrize("stage", ["features", "embedded"])
async def test_a_recorded_stream_is_answered_like_the_live_one(run_embedded, make_lab, stage):
    """The same windows get the same scores, but for a second quantisation."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        config, file = str(lab.settings_file()), lab.folder / "stream.rec"
        edge = lab.edge(learning=NO_ROUNDS, scheduling={"stages": (stage,), "relative_bound": 0.001})
        async with lab.listening() as ear, running(lab.cloud(), edge):
            await until(lambda: ear.of(ModelPointer, "edge-1"))
            async with process("record", str(file), "--config", config) as recorder:
                await until(file.exists)
                async with asyncio.timeout(30):
                    await lab.device("live").run(played(corpus(6)))
                recorder.terminate()
                assert await recorder.wait() == 0
            assert len(read_recording(file).samples) == 6
            status, printed = await command(
                "device", "--id", "again", "--edge", "edge-1", "--replay", str(file), "--speed", "0", "--config", config
            )
            assert status == 0, printed
        assert {packet.stage for packet in ear.of(FeaturePacket, "again")} == {stage}
        live, again = (sorted(ear.of(Prediction, name), key=lambda p: p.seq) for name in ("live", "again"))
        assert [p.score for p in again] == pytest.approx([p.score for p in live], abs=0.05)


async def test_record_stops_by_itself(run_embedded, make_lab):
    """`--seconds`, with a count at the end."""
    async with run_embedded() as broker:
        lab = make_lab(broker.url)
        file = lab.folder / "short.rec"
        status, printed = await command("record", str(file), "--seconds", "0.5", "--config", str(lab.settings_file()))
    assert status == 0
    assert "0 packets" in printed
    assert file.read_bytes().startswith(b"M2REC")
