"""Templates filled with any content: one template with other content must count as another picture.

`draw(kind, content)` gives a picture of a kind; layout, colours, headings and frame are the kind's, all else follows
from the number `content`. Only Pillow's own font and shapes are used, so that it draws the same everywhere. None of
these kinds is among those of the training, and nothing is tuned on them.
"""

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from . import boards, cards, diagrams, games, patterns, prints, scenes, screens, travel
from .canvas import Rng

__all__ = ["TEMPLATES", "Rng", "draw"]

_TRAVEL = (
    travel.boarding_pass,
    travel.departures_board,
    travel.timetable,
    travel.seat_plan,
    travel.underground_map,
    travel.road_sign,
    travel.licence_plate,
    travel.map_with_pins,
)
_GAMES = (
    games.crossword,
    games.sudoku,
    games.chess_position,
    games.go_position,
    games.bingo_card,
    games.word_search,
    games.dice_throw,
    games.dominoes,
    games.playing_cards,
    games.connect_four,
    games.maze,
)
_DIAGRAMS = (
    diagrams.pie_chart,
    diagrams.gantt_chart,
    diagrams.ecg_strip,
    diagrams.star_chart,
    diagrams.flow_chart,
    diagrams.family_tree,
    diagrams.circuit_diagram,
    diagrams.floor_plan,
    diagrams.element_grid,
    diagrams.radar_chart,
)
_BOARDS = (
    boards.scoreboard,
    boards.tournament_bracket,
    boards.leaderboard,
    boards.parliament,
    boards.year_heat_map,
    boards.month_calendar,
    boards.school_week,
    boards.eye_chart,
    boards.sums_sheet,
    boards.letter_tiles,
)
_SCREENS = (
    screens.weather_app,
    screens.quiz_question,
    screens.poll_result,
    screens.warning_dialogue,
    screens.captcha,
    screens.video_thumbnail,
    screens.music_player,
    screens.alarm_list,
    screens.fitness_rings,
    screens.delivery_tracker,
)
_PRINTS = (
    prints.sheet_music,
    prints.menu_board,
    prints.nutrition_facts,
    prints.medicine_box,
    prints.equations,
    prints.bank_cheque,
    prints.record_label,
    prints.recipe_card,
)
_CARDS = (
    cards.name_badge,
    cards.price_tag,
    cards.gift_card,
    cards.event_flyer,
    cards.word_cards,
    cards.lottery_numbers,
    cards.clock_faces,
    cards.vocabulary_trainer,
)
_PATTERNS = (
    patterns.flag_grid,
    patterns.knitting_pattern,
    patterns.molecule,
    patterns.mind_map,
)
_SCENES = (
    scenes.comic_strip,
    scenes.meme_caption,
    scenes.film_subtitle,
    scenes.mood_face,
    scenes.postage_stamp,
    scenes.team_shirt,
)

TEMPLATES: Mapping[str, Callable[[Rng], Image.Image]] = {
    template.__name__: template
    for template in (*_TRAVEL, *_GAMES, *_DIAGRAMS, *_BOARDS, *_SCREENS, *_PRINTS, *_CARDS, *_PATTERNS, *_SCENES)
}


def draw(kind: str, content: int) -> Image.Image:
    """The template `kind`, filled in by the number `content`: the same picture at every call."""
    return TEMPLATES[kind](np.random.default_rng([zlib.crc32(kind.encode()), content]))
